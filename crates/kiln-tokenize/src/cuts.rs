//! Finds places where a text can be cut without changing its tokens.
//!
//! A cut is exact if no added token, no change by the normalizer and no word spans it. Each rule below describes pairs of
//! neighbouring characters between which all three hold. A text is never cut for a pipeline that is not known here.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;
use tokenizers::{AddedToken, ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper};

use crate::counting::Section;

/// The cuts that a pipeline allows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cuts {
    /// White space characters before which a text can be cut.
    spaces: Vec<char>,
    /// Whether a cut may follow any character. Otherwise it follows only a visible ASCII or a Chinese character, which no
    /// normalizer joins with a space.
    after_any: bool,
    /// Whether each Chinese character and punctuation mark is a separate word.
    isolated: bool,
    /// Characters of added tokens except the first. A cut before such a character could split an added token.
    inner: HashSet<char>,
    /// Last characters of added tokens that include the white space after them.
    taking: HashSet<char>,
    /// The maximum number of characters of a word that is not mapped to the unknown token.
    max_word: Option<usize>,
    /// The number of characters of the longest piece of a Unigram vocabulary.
    max_piece: Option<usize>,
    /// Places where every segmentation into pieces of a Unigram vocabulary has a border.
    borders: Option<Arc<Borders>>,
}

/// Places inside a word that no piece of a Unigram vocabulary spans.
#[derive(Debug, Default)]
struct Borders {
    /// Characters that are pieces themselves, so that they never join an unknown token.
    known: HashSet<char>,
    /// Pairs of neighbouring characters in pieces and added tokens.
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

/// The number of bytes that a shortened word keeps at its end, so that an added token that begins there stays whole. Longer
/// tokens and Unigram pieces rule out the cuts that depend on this.
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

    /// The cuts for BERT's normalizer and pre-tokenizer, without a vocabulary.
    pub fn of_bert() -> Self {
        Self { spaces: vec![' ', '\n', '\t', '\u{3000}'], after_any: true, isolated: true, ..Self::default() }
    }

    /// Removes the cuts that could split an added token, or separate it from the white space that belongs to it.
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

    /// The first place at or after `from` where the text can be cut.
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

    /// Divides the text into pieces of about `bytes` bytes. Pieces are longer where the text cannot be cut.
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

    /// Divides a piece into sections at the borders that every segmentation has. The number of tokens of a section is that
    /// of its text with its context, minus that of the context. Without known borders, the piece is one section.
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

    /// Removes the middle of each overlong run of ASCII letters and digits. The token ids do not change: such a run is part
    /// of a word that exceeds the maximum length, so it becomes the unknown token in both cases.
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

    /// Possible ends of a prefix of at least `bytes` bytes. Every segmentation of the whole text into pieces of the
    /// vocabulary has a border at one of them. `None` where no such ends are known.
    pub fn ends(&self, text: &str, bytes: usize) -> Option<Vec<usize>> {
        let max_piece = self.max_piece?;
        let mut ends = Vec::new();
        let start = (bytes..text.len()).find(|at| text.is_char_boundary(*at))?;
        for (at, c) in text[start..].char_indices() {
            // A simple character is normalized by itself, to one character.
            if !simple(c) {
                ends.clear();
                continue;
            }
            ends.push(start + at);
            if ends.len() == max_piece + 2 {
                // The character before the first end may not be simple. At all other ends, both neighbours are.
                ends.remove(0);
                return Some(ends);
            }
        }
        None
    }
}

/// The strings that match an added token: its content, and its normalized content if it is matched in normalized text.
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

/// Whether a normalizer changes each character independently, or together only with characters that combine with it.
fn local(normalizer: &Value) -> bool {
    match normalizer["type"].as_str() {
        None => normalizer.is_null(),
        Some("BertNormalizer" | "NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase" | "StripAccents" | "Nmt") => true,
        Some("Precompiled") => true,
        // Replaces several spaces by one. A cut is before the first of them.
        Some("Replace") => normalizer["pattern"]["Regex"].as_str() == Some(" {2,}"),
        Some("Sequence") => normalizer["normalizers"].as_array().is_some_and(|parts| parts.iter().all(local)),
        Some(_) => false,
    }
}

/// Whether a pre-tokenizer always starts a new word at a space.
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

/// Whether a character is an ideograph that no normalizer changes.
fn is_chinese(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}')
}

/// Whether a character is ASCII punctuation or a common Chinese punctuation mark.
fn is_mark(c: char) -> bool {
    c.is_ascii_punctuation() || matches!(c, '、' | '。' | '，' | '！' | '？' | '：' | '；')
}

fn simple(c: char) -> bool {
    c.is_ascii_alphanumeric() || ('\u{4e00}'..='\u{9fff}').contains(&c)
}
