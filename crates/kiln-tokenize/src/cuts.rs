//! Where a text can be cut so that the tokens of its pieces are the tokens of the whole.
//!
//! A cut is exact where nothing reaches across it: no added token, no normalizer, no word. Each rule below names a pair of
//! neighbouring characters for which all three hold; a pipeline that is not known here is never cut.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;
use tokenizers::{AddedToken, ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper};

use crate::counting::Section;

/// What a pipeline allows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cuts {
    /// White space before which a text can be cut.
    spaces: Vec<char>,
    /// Whether a cut may follow any character. Otherwise it follows only an ASCII character or a Chinese one, which a
    /// normalizer cannot join with a space.
    after_any: bool,
    /// Chinese characters and punctuation are words of their own.
    isolated: bool,
    /// Characters inside of added tokens, before which a cut could divide one.
    inner: HashSet<char>,
    /// Last characters of added tokens that take the white space behind them.
    taking: HashSet<char>,
    /// Longer words become one unknown token, whatever they contain.
    max_word: Option<usize>,
    /// No piece of a Unigram vocabulary is longer, in characters.
    max_piece: Option<usize>,
    /// Where every segmentation into pieces of a Unigram vocabulary has a border.
    borders: Option<Arc<Borders>>,
}

/// Places inside a word that no piece of a Unigram vocabulary spans.
#[derive(Debug, Default)]
struct Borders {
    /// Characters that are pieces themselves, so that they never join an unknown token.
    known: HashSet<char>,
    /// Neighbouring characters of pieces and added tokens.
    joined: HashSet<(char, char)>,
}

impl Borders {
    fn of<'a>(pieces: impl Iterator<Item = &'a String>) -> Self {
        let mut borders = Self::default();
        for piece in pieces {
            let mut before = None;
            for c in piece.chars() {
                match before {
                    Some(before) if simple(before) && simple(c) => {
                        borders.joined.insert((before, c));
                    }
                    None if c.len_utf8() == piece.len() => {
                        borders.known.insert(c);
                    }
                    _ => {}
                }
                before = Some(c);
            }
        }
        borders
    }

    fn between(&self, before: char, next: char) -> bool {
        simple(before) && simple(next) && self.known.contains(&before) && !self.joined.contains(&(before, next))
    }
}

/// The characters of an added token that a shortened word keeps at its end, so that a token that begins there stays whole.
const KEPT_END: usize = 64;

impl Cuts {
    pub fn of(pipeline: &tokenizers::Tokenizer) -> Self {
        let json = |part| serde_json::to_value(part).unwrap_or_default();
        let normalizer = pipeline.get_normalizer();
        let pre_tokenizer = pipeline.get_pre_tokenizer().map_or(Value::Null, json);
        let kind = |part: &Value| part["type"].as_str().unwrap_or_default().to_owned();
        let normalizer_json = normalizer.map_or(Value::Null, |part| serde_json::to_value(part).unwrap_or_default());
        let bert = kind(&normalizer_json) == "BertNormalizer" && kind(&pre_tokenizer) == "BertPreTokenizer";
        let known = bert || (local(&normalizer_json) && divides_at_spaces(&pre_tokenizer));
        if !known {
            return Self::default();
        }
        let as_space = |c: &char| {
            let mut text = NormalizedString::from(format!("a{c}b"));
            let done = normalizer.is_none_or(|normalizer| normalizer.normalize(&mut text).is_ok());
            done && text.get() == "a b"
        };
        let mut cuts = Self {
            spaces: [' ', '\n', '\t', '\u{3000}'].into_iter().filter(as_space).collect(),
            after_any: bert,
            isolated: bert && normalizer_json["handle_chinese_chars"].as_bool() == Some(true),
            ..Self::default()
        };
        let added: Vec<AddedToken> = pipeline.get_added_tokens_decoder().into_values().collect();
        let matched: Vec<String> = added.iter().flat_map(|token| matched_texts(token, normalizer)).collect();
        cuts.respect(&added, &matched);
        let plain = added.iter().all(|token| !token.single_word)
            && matched.iter().all(|text| text.len() <= KEPT_END && !text.chars().all(|c| c.is_ascii_alphanumeric()));
        match pipeline.get_model() {
            ModelWrapper::WordPiece(model) if bert && plain => cuts.max_word = Some(model.max_input_chars_per_word),
            ModelWrapper::Unigram(model) if matched.iter().all(|text| !text.chars().all(simple)) => {
                let pieces = || model.iter().map(|(piece, _)| piece).chain(&matched);
                let longest = pieces().map(|piece| piece.chars().count()).max().unwrap_or(1);
                cuts.max_piece = (longest <= KEPT_END).then_some(longest);
                cuts.borders = added.iter().all(|token| !token.single_word).then(|| Arc::new(Borders::of(pieces())));
            }
            _ => {}
        }
        cuts
    }

    /// The cuts of BERT's normalizer and pre-tokenizer, without a vocabulary.
    pub fn of_bert() -> Self {
        Self { spaces: vec![' ', '\n', '\t', '\u{3000}'], after_any: true, isolated: true, ..Self::default() }
    }

    /// Takes away the cuts that could divide an added token, or separate it from the white space that belongs to it.
    fn respect(&mut self, added: &[AddedToken], matched: &[String]) {
        for token in added {
            if token.rstrip && !self.after_any {
                self.taking.extend(token.content.chars().next_back());
            }
            self.isolated &= !token.single_word;
        }
        self.inner = matched.iter().flat_map(|text| text.chars().skip(1)).collect();
        if self.inner.iter().any(|c| c.is_whitespace()) {
            self.spaces.clear();
        }
    }

    /// The first place at `from` or behind it where the text can be cut.
    fn next(&self, text: &str, from: usize) -> Option<usize> {
        let start = (from..text.len()).find(|at| text.is_char_boundary(*at))?;
        let mut before = text[..start].chars().next_back()?;
        for (at, next) in text[start..].char_indices() {
            if self.between(before, next) {
                return Some(start + at);
            }
            before = next;
        }
        None
    }

    fn between(&self, before: char, next: char) -> bool {
        if self.spaces.contains(&next) {
            return (self.after_any || before.is_ascii_graphic() || is_chinese(before))
                && !self.taking.contains(&before);
        }
        self.isolated && (is_chinese(next) || is_mark(next)) && !self.inner.contains(&next)
    }

    /// The text in pieces of about so many bytes, longer where it cannot be cut.
    pub fn pieces<'a>(&self, text: &'a str, bytes: usize) -> impl Iterator<Item = &'a str> {
        let mut rest = text;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let cut = self.next(rest, bytes).unwrap_or(rest.len());
            let (piece, behind) = rest.split_at(cut);
            rest = behind;
            Some(piece)
        })
    }

    /// A piece in sections between borders that every segmentation has. The tokens of a section are those of its text with
    /// the character before it, less those of that character alone; there is no second section where borders are unknown.
    pub fn sections<'a>(&self, piece: &'a str) -> impl Iterator<Item = Section<'a>> {
        let mut start = 0;
        let mut context = 0;
        std::iter::from_fn(move || {
            if start + context >= piece.len() {
                return None;
            }
            let rest = &piece[start..];
            let border = self.borders.as_ref().and_then(|borders| {
                let mut characters = rest[context..].char_indices();
                let mut before = characters.next()?.1;
                characters.find_map(|(at, next)| {
                    let found = borders.between(before, next).then_some((context + at, before.len_utf8()));
                    before = next;
                    found
                })
            });
            let (end, last) = border.unwrap_or((rest.len(), 0));
            let section = Section { context, text: &rest[..end] };
            (start, context) = if border.is_some() { (start + end - last, last) } else { (piece.len(), 0) };
            Some(section)
        })
    }

    /// The text with the middle of each overlong run of ASCII letters and digits left out. It has the same token ids: such
    /// a run is part of a word that is longer than a word may be, which becomes the unknown token either way.
    pub fn shortened(&self, text: &str) -> Option<String> {
        let max_word = self.max_word?;
        let kept = max_word.saturating_add(1);
        let mut short = String::new();
        let mut copied = 0;
        let mut run = 0;
        for (at, byte) in text.bytes().chain([0]).enumerate() {
            if byte.is_ascii_alphanumeric() {
                continue;
            }
            if at - run > kept + KEPT_END {
                short.push_str(&text[copied..run + kept]);
                copied = at - KEPT_END;
            }
            run = at + 1;
        }
        (copied > 0).then(|| short + &text[copied..])
    }

    /// Ends of a prefix of at least so many bytes: every segmentation of the whole text into pieces of the vocabulary has a
    /// border at one of them. None where that cannot be known.
    pub fn ends(&self, text: &str, bytes: usize) -> Option<Vec<usize>> {
        let max_piece = self.max_piece?;
        let mut ends = Vec::new();
        let start = (bytes..text.len()).find(|at| text.is_char_boundary(*at))?;
        for (at, c) in text[start..].char_indices() {
            // Each of these characters is normalized by itself, to one character.
            if !simple(c) {
                ends.clear();
                continue;
            }
            ends.push(start + at);
            if ends.len() == max_piece + 2 {
                // The first and the last stand beside characters that are known to be simple too.
                ends.remove(0);
                return Some(ends);
            }
        }
        None
    }
}

/// What an added token is recognized by: its content, and in a normalized text its normalized content.
fn matched_texts(token: &AddedToken, normalizer: Option<&NormalizerWrapper>) -> Vec<String> {
    let mut texts = vec![token.content.clone()];
    if token.normalized {
        let mut normalized = NormalizedString::from(token.content.as_str());
        if normalizer.is_some_and(|normalizer| normalizer.normalize(&mut normalized).is_ok()) {
            texts.push(normalized.get().to_owned());
        }
    }
    texts
}

/// Whether a normalizer changes each character by itself, or together with those that combine with it.
fn local(normalizer: &Value) -> bool {
    match normalizer["type"].as_str() {
        None => normalizer.is_null(),
        Some("BertNormalizer" | "NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase" | "StripAccents" | "Nmt") => true,
        Some("Precompiled") => true,
        // Several spaces to one: a cut stands before the first of them.
        Some("Replace") => normalizer["pattern"]["Regex"].as_str() == Some(" {2,}"),
        Some("Sequence") => normalizer["normalizers"].as_array().is_some_and(|parts| parts.iter().all(local)),
        Some(_) => false,
    }
}

/// Whether no word of a pre-tokenizer goes on behind a space.
fn divides_at_spaces(pre_tokenizer: &Value) -> bool {
    match pre_tokenizer["type"].as_str() {
        Some("BertPreTokenizer" | "Whitespace" | "WhitespaceSplit") => true,
        Some("Metaspace") => pre_tokenizer["split"].as_bool() == Some(true),
        Some("ByteLevel") => pre_tokenizer["use_regex"].as_bool() == Some(true),
        Some("Sequence") => pre_tokenizer["pretokenizers"]
            .as_array()
            .is_some_and(|parts| !parts.is_empty() && parts.iter().all(divides_at_spaces)),
        _ => false,
    }
}

/// Ideographs that every normalizer leaves as they are.
fn is_chinese(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}')
}

/// Punctuation of ASCII, and the usual marks of Chinese.
fn is_mark(c: char) -> bool {
    c.is_ascii_punctuation() || matches!(c, '、' | '。' | '，' | '！' | '？' | '：' | '；')
}

fn simple(c: char) -> bool {
    c.is_ascii_alphanumeric() || ('\u{4e00}'..='\u{9fff}').contains(&c)
}
