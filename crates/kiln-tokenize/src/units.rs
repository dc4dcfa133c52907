use std::collections::HashMap;
use std::ops::Range;

use rayon::prelude::*;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    Model, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    PreTokenizerWrapper,
};
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

use crate::config::SpecialToken;
use crate::reading::{Extent, from_ids};
use crate::tokenizer::cannot_encode;
use crate::{Encoding, Error, Tokenizer};

/// A part of a text that fits into the maximum length, and the positions of its units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitWindow {
    /// The encoding of the window, including special tokens.
    pub encoding: Encoding,
    /// The index and the first token of each unit, in order. Each unit of the text is in at least one window.
    pub units: Vec<(usize, usize)>,
    /// The position after the last token of the last unit.
    pub end: usize,
    /// The units whose tags are taken from this window. Of two windows that overlap, each owns the half of the overlap that
    /// is nearer to its middle.
    pub own: Range<usize>,
}

/// Neighbouring windows overlap by 1/`OVERLAP` of a window.
const OVERLAP: usize = 4;

/// A unit, with all that its tokens depend on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Unit<'a> {
    word: &'a str,
    place: Place,
}

/// What precedes a unit.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// Nothing: it is the first unit.
    First,
    /// White space.
    Spaced,
    /// Another unit, without white space between them.
    Inside,
}

/// A cache of tokenized units: a text has many characters, but few distinct ones.
#[derive(Default)]
struct KnownUnits<'a>(HashMap<Unit<'a>, Box<[u32]>>);

/// The maximum number of units in the cache.
const MOST_KNOWN: usize = 1 << 16;

impl Tokenizer {
    /// Encodes a text unit by unit, so that each token belongs to one unit. A text that exceeds the maximum length is
    /// encoded in windows that overlap by a quarter.
    ///
    /// A unit that the tokenizer drops, such as a space or a control character, becomes the unknown token, so no unit is
    /// lost. In SentencePiece and byte-level vocabularies, tokens depend on whether a space precedes them. Here a unit gets
    /// a space only if it has one in the text. transformers, given a list of words, puts a space before each word or before
    /// none.
    ///
    /// # Errors
    /// When a unit is out of vocabulary and the tokenizer has no unknown token.
    ///
    /// # Panics
    /// When a range of `units` is not a valid range of `text`.
    pub fn encode_units(&self, text: &str, units: &[Range<usize>]) -> Result<Vec<UnitWindow>, Error> {
        self.encode_known_units(text, units, &mut KnownUnits::default())
    }

    /// Like [`Tokenizer::encode_units`] for many texts, in parallel on rayon's thread pool.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_units`], for any of the texts.
    pub fn encode_units_all<'a>(
        &self,
        texts: impl IntoIterator<Item = (&'a str, &'a [Range<usize>])>,
    ) -> Result<Vec<Vec<UnitWindow>>, Error> {
        let texts: Vec<_> = texts.into_iter().collect();
        let encode = |known: &mut KnownUnits<'a>, (text, units)| self.encode_known_units(text, units, known);
        texts.into_par_iter().map_init(KnownUnits::default, encode).collect()
    }

    fn encode_known_units<'a>(
        &self,
        text: &'a str,
        units: &[Range<usize>],
        known: &mut KnownUnits<'a>,
    ) -> Result<Vec<UnitWindow>, Error> {
        self.windows(text, &self.units_tokens(text, units, known)?)
    }

    /// Divides the tokens of a text into windows.
    pub(crate) fn windows(&self, text: &str, tokens: &UnitTokens) -> Result<Vec<UnitWindow>, Error> {
        let room = self.max_length - self.special_tokens(false);
        let mut windows = Vec::new();
        let mut start = 0;
        loop {
            let end = tokens.fill(start, room);
            windows.push(self.window(text, tokens, start..end)?);
            if end == tokens.ends.len() {
                break;
            }
            // The next window starts a quarter of the units before the end of this one, but always after its start.
            start = (end - (end - start) / OVERLAP).max(start + 1);
        }
        share_out(&mut windows);
        Ok(windows)
    }

    fn window(&self, text: &str, tokens: &UnitTokens, range: Range<usize>) -> Result<UnitWindow, Error> {
        let ids = &tokens.ids[tokens.start(range.start)..tokens.start(range.end)];
        let whole = self.guard(|| {
            let whole = self.pipeline.post_process(from_ids(ids, 0), None, true);
            whole.map_err(|source| cannot_encode(text, source))
        })?;
        let first = whole.get_special_tokens_mask().iter().position(|&special| special == 0).unwrap_or(0);
        let at = |unit: usize| first + tokens.start(unit) - tokens.start(range.start);
        let encoding = Encoding {
            input_ids: whole.get_ids().to_vec(),
            token_type_ids: self.type_ids(&whole)?,
            full_length: tokens.ids.len() + self.special_tokens(false),
            full_length_is_exact: true,
        };
        let units = range.clone().map(|unit| (unit, at(unit))).collect();
        Ok(UnitWindow { encoding, units, end: at(range.end), own: range })
    }

    fn units_tokens<'a>(
        &self,
        text: &'a str,
        units: &[Range<usize>],
        known: &mut KnownUnits<'a>,
    ) -> Result<UnitTokens, Error> {
        let mut tokens = UnitTokens { ids: Vec::new(), ends: Vec::with_capacity(units.len()) };
        for (at, unit) in units.iter().enumerate() {
            let place = match text[..unit.start].chars().next_back() {
                Some(before) if !before.is_whitespace() => Place::Inside,
                _ if at > 0 => Place::Spaced,
                _ => Place::First,
            };
            let unit = Unit { word: &text[unit.clone()], place };
            match known.0.get(&unit) {
                Some(ids) => tokens.ids.extend(ids),
                None => {
                    let start = tokens.ids.len();
                    self.guard(|| self.unit_tokens(unit, &mut tokens.ids))?;
                    if known.0.len() < MOST_KNOWN {
                        known.0.insert(unit, tokens.ids[start..].into());
                    }
                }
            }
            tokens.ends.push(tokens.ids.len());
        }
        Ok(tokens)
    }

    /// Appends the ids of a unit, at least one.
    fn unit_tokens(&self, Unit { word, place }: Unit<'_>, ids: &mut Vec<u32>) -> Result<(), Error> {
        let before = ids.len();
        let room = self.max_length - self.special_tokens(false);
        let byte_level = self.byte_level();
        let spaced = format!(" {word}");
        let text = if byte_level.is_some() && place == Place::Spaced { &spaced } else { word };
        // A unit longer than a window becomes the unknown token, so the rest of it need not be read.
        let whole = self.read(text, Extent::Tokens(room + 2))?.encoding;
        let own = whole.get_ids();
        let first = own.first().and_then(|&id| self.pipeline.id_to_token(id)).unwrap_or_default();
        let has_prefix = first.starts_with(SPACE_MARK) || byte_level.is_some_and(|level| level.add_prefix_space);
        if has_prefix && place == Place::Inside && own.len() <= room + 1 {
            ids.extend(self.inner_tokens(word, byte_level).map_err(|source| cannot_encode(word, source))?);
        } else if own.len() > 1 && first.chars().eq([SPACE_MARK]) {
            ids.extend(&own[1..]);
        } else {
            ids.extend(own);
        }
        // A dropped unit, or one longer than a window, becomes one unknown token.
        if ids.len() == before || ids.len() - before > room {
            ids.truncate(before);
            let unknown = || cannot_encode(word, "there is no unknown token".into());
            ids.push(self.unknown_token().ok_or_else(unknown)?);
        }
        Ok(())
    }

    /// The ids of a unit inside a word, without the space that the pipeline would add.
    fn inner_tokens(&self, word: &str, byte_level: Option<ByteLevel>) -> tokenizers::Result<Vec<u32>> {
        let mut normalized = NormalizedString::from(word);
        if let Some(normalizer) = self.pipeline.get_normalizer() {
            normalizer.normalize(&mut normalized)?;
        }
        let mut divided = PreTokenizedString::from(normalized);
        if let Some(byte_level) = byte_level {
            byte_level.add_prefix_space(false).pre_tokenize(&mut divided)?;
        }
        let mut ids = Vec::new();
        for (part, ..) in divided.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            ids.extend(self.pipeline.get_model().tokenize(part)?.into_iter().map(|token| token.id));
        }
        Ok(ids)
    }

    /// The byte-level step of the pipeline, if there is one.
    pub(crate) fn byte_level(&self) -> Option<ByteLevel> {
        fn of(step: &PreTokenizerWrapper) -> Option<ByteLevel> {
            match step {
                PreTokenizerWrapper::ByteLevel(byte_level) => Some(*byte_level),
                PreTokenizerWrapper::Sequence(steps) => steps.as_ref().iter().find_map(of),
                _ => None,
            }
        }
        self.pipeline.get_pre_tokenizer().and_then(of)
    }

    fn unknown_token(&self) -> Option<u32> {
        let named = self.special_tokens.unk_token.as_ref().map(SpecialToken::name);
        named.into_iter().chain(["[UNK]", "<unk>"]).find_map(|token| self.pipeline.token_to_id(token))
    }
}

/// SentencePiece's symbol for a space.
const SPACE_MARK: char = '▁';

/// The concatenated ids of all units of a text.
#[derive(Debug, Default)]
pub(crate) struct UnitTokens {
    pub ids: Vec<u32>,
    /// The position after the last id of each unit.
    pub ends: Vec<usize>,
}

impl UnitTokens {
    /// The position of a unit's first id. For the number of units it is the number of ids.
    pub fn start(&self, unit: usize) -> usize {
        unit.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// The end of the longest run of units from `start` that fits into `room` tokens.
    fn fill(&self, start: usize, room: usize) -> usize {
        let first = self.start(start);
        start + self.ends[start..].iter().take_while(|end| **end - first <= room).count()
    }
}

/// Divides the overlap of neighbouring windows: each owns the half that is nearer to its middle.
fn share_out(windows: &mut [UnitWindow]) {
    for at in 1..windows.len() {
        let (earlier, later) = (&windows[at - 1].own, &windows[at].own);
        let border = later.start + (earlier.end - later.start) / 2;
        windows[at - 1].own.end = border;
        windows[at].own.start = border;
    }
}

/// The characters of a text as byte ranges, without white space. Combining marks, invisible format characters and
/// characters joined by a zero-width joiner belong to the character before them.
pub fn characters(text: &str) -> Vec<Range<usize>> {
    let mut units: Vec<Range<usize>> = Vec::new();
    let mut joins = false;
    for (start, char) in text.char_indices() {
        let end = start + char.len_utf8();
        match units.last_mut() {
            Some(last) if last.end == start && (is_modifier(char) || is_format(char) || joins) => last.end = end,
            _ if char.is_whitespace() => {}
            _ => units.push(start..end),
        }
        joins = char == '\u{200d}';
    }
    units
}

/// Whether a character only modifies the one before it: a combining mark such as an accent or an Indic vowel sign, a
/// zero-width joiner or non-joiner, or the tone of an emoji's skin.
pub fn is_modifier(char: char) -> bool {
    if char < '\u{300}' || is_cjk(char) && !matches!(char, '\u{3099}' | '\u{309a}') {
        return false;
    }
    char.general_category_group() == GeneralCategoryGroup::Mark
        || matches!(char, '\u{200c}' | '\u{200d}' | '\u{1f3fb}'..='\u{1f3ff}')
}

/// Whether a character is invisible and only guides the layout, such as a soft hyphen.
fn is_format(char: char) -> bool {
    char >= '\u{ad}' && !is_cjk(char) && char.general_category() == GeneralCategory::Format
}

/// The words of a text as byte ranges: runs of letters and digits, and each Chinese character, Japanese kana and punctuation
/// mark by itself.
pub fn words(text: &str) -> Vec<Range<usize>> {
    let mut units: Vec<Range<usize>> = Vec::new();
    let mut run = false;
    for unit in characters(text) {
        let char = text[unit.clone()].chars().next().expect("a unit has a character");
        let joins = char.is_alphanumeric() && !is_cjk(char);
        match units.last_mut() {
            Some(last) if run && joins && last.end == unit.start => last.end = unit.end,
            _ => units.push(unit),
        }
        run = joins;
    }
    units
}

/// Whether a character is Chinese or kana. Such words are written without spaces between them.
pub fn is_cjk(char: char) -> bool {
    matches!(char, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn tiny(name: &str) -> Tokenizer {
        Tokenizer::from_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)).expect("it is whole")
    }

    fn shown<'a>(text: &'a str, units: &[Range<usize>]) -> Vec<&'a str> {
        units.iter().map(|unit| &text[unit.clone()]).collect()
    }

    #[test]
    fn texts_fall_into_units() {
        let text = "房 e\u{301}!\u{fe0f} 👩\u{200d}🔬ab";
        assert_eq!(shown(text, &characters(text)), ["房", "e\u{301}", "!\u{fe0f}", "👩\u{200d}🔬", "a", "b"]);
        let text = "我 love Rust2024, 真的";
        assert_eq!(shown(text, &words(text)), ["我", "love", "Rust2024", ",", "真", "的"]);
        let text = "नमस्ते क्\u{200d}ष สวัสดีครับ cafe\u{301} co\u{ad}operate か\u{3099}x";
        let expected = ["नमस्ते", "क्\u{200d}ष", "สวัสดีครับ", "cafe\u{301}", "co\u{ad}operate", "か\u{3099}", "x"];
        assert_eq!(shown(text, &words(text)), expected);
        assert!(characters(" \n").is_empty() && words("").is_empty());
    }

    #[test]
    fn every_unit_has_a_token_of_its_own() {
        let tokenizer = tiny("tiny");
        // "cleaners" is two word pieces; the control character is dropped by the normalizer.
        let text = "房cleaners\u{1}间";
        let units = [0..3, 3..11, 11..12, 12..15];
        let windows = tokenizer.encode_units(text, &units).expect("there is an unknown token");
        let [window] = windows.as_slice() else { panic!("one window is enough") };
        assert_eq!(window.encoding.input_ids, [2, 5, 7, 9, 10, 1, 6, 3]);
        assert_eq!(window.units, [(0, 1), (1, 2), (2, 5), (3, 6)]);
        assert_eq!(window.own, 0..4);
        let empty = tokenizer.encode_units("", &[]).expect("nothing to tokenize");
        assert_eq!((empty.len(), empty[0].encoding.input_ids.as_slice()), (1, [2, 3].as_slice()));
    }

    #[test]
    fn sentence_pieces_inside_a_sentence_have_no_space() {
        let tokenizer = tiny("tiny-unigram");
        let text = "房间 房";
        let windows = tokenizer.encode_units(text, &characters(text)).expect("there is an unknown token");
        let ids = &windows[0].encoding.input_ids;
        assert_eq!(windows[0].units.len(), 3);
        assert_eq!(ids.len(), 5, "a token a character: {ids:?}");
    }

    #[test]
    fn windows_lose_no_unit_and_none_speaks_twice() {
        let text = "房间".repeat(23);
        let units = characters(&text);
        for max_length in 4..20 {
            let tokenizer = tiny("tiny").with_max_length(max_length).expect("it is enough");
            let windows = tokenizer.encode_units(&text, &units).expect("there is an unknown token");
            assert!(windows.iter().all(|window| window.encoding.input_ids.len() <= max_length));
            let spoken: Vec<usize> = windows.iter().flat_map(|window| window.own.clone()).collect();
            assert_eq!(spoken, (0..46).collect::<Vec<_>>(), "{max_length}");
            for window in &windows {
                assert!(window.own.clone().all(|unit| window.units.iter().any(|(there, _)| *there == unit)));
                for &(unit, token) in &window.units {
                    assert_eq!(window.encoding.input_ids[token], 5 + (unit % 2) as u32);
                }
            }
        }
    }
}
