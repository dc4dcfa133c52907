use std::collections::HashSet;
use std::ops::Range;

use kiln_tokenize::Tokenizer;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::Error;

/// The unit of masking: the tokens of a unit are masked together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MaskUnit {
    /// A single token, as in the original BERT.
    #[default]
    Token,
    /// A whole word: all tokens of an English word, or the longest match of Chinese characters in a word list.
    Word,
    /// As [`MaskUnit::Word`], but Chinese characters are masked in runs of 1, 2, 3 or 4, with probabilities of 40, 30, 20
    /// and 10 % (MacBERT, Cui et al., 2020).
    Ngram,
}

/// Settings of the masking.
#[derive(Clone, Debug, PartialEq)]
pub struct MaskingConfig {
    /// The share of tokens that the model must predict. Of these, 80 % become the mask token, 10 % a random token, and 10 %
    /// stay as they are.
    pub share: f64,
    /// The tokens that are masked together.
    pub unit: MaskUnit,
    /// The Chinese words that [`MaskUnit::Word`] masks as a whole.
    pub words: Vec<String>,
}

impl Default for MaskingConfig {
    /// Masks 15 % of the tokens, each on its own.
    fn default() -> Self {
        Self { share: 0.15, unit: MaskUnit::default(), words: Vec::new() }
    }
}

/// A [`MaskingConfig`] prepared for a vocabulary.
#[derive(Clone, Debug)]
pub struct Masking {
    share: f64,
    unit: MaskUnit,
    mask_token_id: u32,
    /// The ids that random tokens are drawn from: all ids except special tokens.
    ordinary: Vec<u32>,
    /// How each id joins its neighbours.
    joins: Vec<Joins>,
    words: HashSet<Vec<u32>>,
    longest_word: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joins {
    /// It begins a word or is no part of one.
    No,
    /// It continues the word before it.
    Before,
    /// It begins with a Chinese character.
    Characters,
}

/// The lengths of runs of Chinese characters, which are drawn with equal probability.
const RUN_LENGTHS: [usize; 10] = [1, 1, 1, 1, 2, 2, 2, 3, 3, 4];

impl MaskingConfig {
    /// Prepares the masking for a tokenizer's vocabulary.
    ///
    /// # Errors
    /// When the vocabulary has no mask token, or a word cannot be tokenized.
    pub fn init(&self, tokenizer: &Tokenizer) -> Result<Masking, Error> {
        let mask_token_id = tokenizer.mask_token_id().ok_or(Error::NoMaskToken)?;
        let ids = 0..u32::try_from(tokenizer.vocab_size()).expect("ids are u32");
        let ordinary = ids.clone().filter(|&id| tokenizer.token(id).is_some() && !tokenizer.is_special(id)).collect();
        let space_mark = if tokenizer.is_byte_level() { BYTE_LEVEL_SPACE } else { SPACE_MARK };
        let tokens: Vec<[String; 2]> =
            ids.map(|id| [tokenizer.token(id).unwrap_or_default(), tokenizer.token_text(id)]).collect();
        let marks_spaces = marks_spaces(tokens.iter().map(|[token, _]| token.as_str()), space_mark);
        let is_spaced = |token: &str| !marks_spaces || token.starts_with(space_mark);
        let joins = tokens.iter().map(|[token, text]| joins(token, text, is_spaced(token))).collect();
        let words: HashSet<Vec<u32>> = tokenizer.pieces(&self.words)?.into_iter().collect();
        let longest_word = words.iter().map(Vec::len).max().unwrap_or(0);
        let (share, unit) = (self.share, self.unit);
        Ok(Masking { share, unit, mask_token_id, ordinary, joins, words, longest_word })
    }
}

/// SentencePiece's mark of a space.
pub(crate) const SPACE_MARK: char = '▁';

/// The mark of a space in a byte-level vocabulary.
const BYTE_LEVEL_SPACE: char = 'Ġ';

/// Whether the tokens of a vocabulary mark the spaces before them. A WordPiece vocabulary, which marks continuations
/// instead, may have the mark as an ordinary character.
pub(crate) fn marks_spaces<'a>(tokens: impl Iterator<Item = &'a str>, mark: char) -> bool {
    let (mut spaces, mut continuations) = (0, 0);
    for token in tokens {
        spaces += usize::from(token.starts_with(mark));
        continuations += usize::from(token.starts_with("##"));
    }
    spaces > continuations
}

/// How a token joins the token before it. `text` is the token's text, and `is_spaced` is whether a space may precede it.
fn joins(token: &str, text: &str, is_spaced: bool) -> Joins {
    match text.chars().next() {
        Some(first) if is_chinese(first) => Joins::Characters,
        _ if token.len() > 2 && token.starts_with("##") => Joins::Before,
        Some(first) if !is_spaced && first.is_alphanumeric() => Joins::Before,
        _ => Joins::No,
    }
}

/// Whether a character is in a block of CJK ideographs that BERT splits into single characters.
fn is_chinese(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

impl Masking {
    /// Masks some of the ids, and returns the positions that the model must predict, in order, with their original ids.
    ///
    /// Their number is the configured share of all ids, rounded, or fewer where the units do not fit, but at least one.
    ///
    /// # Panics
    /// When there are no ids.
    pub fn mask(&self, ids: &mut [u32], random: &mut StdRng) -> Vec<(usize, u32)> {
        let wanted = ((ids.len() as f64 * self.share).round() as usize).max(1);
        let mut units = self.units(ids, random);
        units.shuffle(random);
        let mut places: Vec<usize> = Vec::with_capacity(wanted);
        for unit in &units {
            if places.len() + unit.len() <= wanted {
                places.extend(unit.clone());
            }
        }
        if places.is_empty() {
            places.extend(units.iter().min_by_key(|unit| unit.len()).expect("there are ids").clone());
        }
        places.sort_unstable();
        let targets = places.iter().map(|&place| (place, ids[place])).collect();
        for place in places {
            ids[place] = match random.random_range(0..10) {
                0..8 => self.mask_token_id,
                8 => *self.ordinary.choose(random).unwrap_or(&self.mask_token_id),
                _ => ids[place],
            };
        }
        targets
    }

    /// Splits the ids into units that are masked together.
    fn units(&self, ids: &[u32], random: &mut impl Rng) -> Vec<Range<usize>> {
        let joins = |at: usize| self.joins.get(ids[at] as usize).copied().unwrap_or(Joins::No);
        let mut units = Vec::with_capacity(ids.len());
        let mut start = 0;
        while start < ids.len() {
            let run = |matches: Joins, most: usize| {
                (start + 1..ids.len().min(start + most)).take_while(|&at| joins(at) == matches).count() + 1
            };
            let length = match (self.unit, joins(start)) {
                (MaskUnit::Token, _) => 1,
                (MaskUnit::Ngram, Joins::Characters) => {
                    run(Joins::Characters, RUN_LENGTHS[random.random_range(0..RUN_LENGTHS.len())])
                }
                (MaskUnit::Word, Joins::Characters) => self.word(&ids[start..]),
                _ => run(Joins::Before, usize::MAX - start),
            };
            units.push(start..start + length);
            start += length;
        }
        units
    }

    /// Length in tokens of the longest listed word at the start of the ids, or 1 if there is none.
    fn word(&self, ids: &[u32]) -> usize {
        let most = self.longest_word.min(ids.len());
        (2..=most).rev().find(|&length| self.words.contains(&ids[..length])).unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    /// Ids 0 to 4 are special, and 4 is the mask. 5 and 6 are characters, 7 is a word, 8 its continuation, 9 punctuation.
    fn masking(unit: MaskUnit) -> Masking {
        let tokens = ["", "", "", "", "", "房", "间", "un", "##able", "!"];
        Masking {
            share: 0.15,
            unit,
            mask_token_id: 4,
            ordinary: (5..10).collect(),
            joins: tokens.iter().map(|token| joins(token, token.trim_start_matches("##"), true)).collect(),
            words: HashSet::from([vec![5, 6]]),
            longest_word: 2,
        }
    }

    #[test]
    fn units_are_tokens_words_or_runs() {
        let ids = [5, 6, 5, 7, 8, 8, 9, 6];
        let random = &mut StdRng::seed_from_u64(1);
        assert_eq!(masking(MaskUnit::Token).units(&ids, random).len(), 8);
        assert_eq!(masking(MaskUnit::Word).units(&ids, random), [0..2, 2..3, 3..6, 6..7, 7..8]);
        let mut lengths = [0usize; 5];
        for _ in 0..20_000 {
            lengths[masking(MaskUnit::Ngram).units(&[5, 6, 5, 6, 5], random)[0].len()] += 1;
        }
        for (length, share) in [(1, 0.4), (2, 0.3), (3, 0.2), (4, 0.1)] {
            assert!((lengths[length] as f64 / 20_000.0 - share).abs() < 0.015, "{lengths:?}");
        }
    }

    #[test]
    fn sentencepiece_goes_on_where_there_is_no_space() {
        let tokens = ["▁un", "able", "▁", "好", "▁好", "!"];
        assert_eq!(tokens.map(|token| joins(token, token.trim_start_matches('▁'), token.starts_with('▁'))), {
            use Joins::{Before, Characters, No};
            [No, Before, No, Characters, Characters, No]
        });
        assert_eq!(joins("æĪ¿", "房", false), Joins::Characters);
        assert_eq!([joins("Ġa", "a", true), joins("æĪ", "�", false)], [Joins::No, Joins::No]);
    }

    #[test]
    fn a_word_piece_vocabulary_may_have_the_mark_of_a_space() {
        let marks = |tokens: &[&str]| marks_spaces(tokens.iter().copied(), SPACE_MARK);
        assert!(marks(&["▁un", "▁able", "##"]));
        assert!(!marks(&["▁", "##able", "un"]) && !marks(&["un"]));
    }

    /// 15 % of the tokens are chosen. Of these, 80 % are masked, 10 % are drawn from five ids, one of which is the same, and
    /// 10 % stay.
    #[test]
    fn shares_are_those_of_bert() {
        for unit in [MaskUnit::Token, MaskUnit::Word, MaskUnit::Ngram] {
            let masking = masking(unit);
            let random = &mut StdRng::seed_from_u64(2);
            let [mut chosen, mut masked, mut other, mut same] = [0.0f64; 4];
            for _ in 0..4_000 {
                let before: Vec<u32> = (0..100).map(|_| random.random_range(5..10)).collect();
                let mut after = before.clone();
                let targets = masking.mask(&mut after, random);
                assert!(targets.is_sorted() && targets.iter().all(|&(place, id)| before[place] == id));
                let changed = (0..100).filter(|&place| before[place] != after[place]);
                assert!(changed.into_iter().all(|place| targets.iter().any(|&(target, _)| target == place)));
                chosen += targets.len() as f64;
                for (place, id) in targets {
                    match after[place] {
                        4 => masked += 1.0,
                        found if found == id => same += 1.0,
                        _ => other += 1.0,
                    }
                }
            }
            assert!((chosen / 400_000.0 - 0.15).abs() < 0.002, "{unit:?}: {chosen}");
            assert!((masked / chosen - 0.8).abs() < 0.01, "{unit:?}: {masked} of {chosen}");
            assert!((other / chosen - 0.08).abs() < 0.01, "{unit:?}: {other} of {chosen}");
            assert!((same / chosen - 0.12).abs() < 0.01, "{unit:?}: {same} of {chosen}");
        }
    }

    #[test]
    fn at_least_one_token_is_told() {
        let random = &mut StdRng::seed_from_u64(3);
        assert_eq!(masking(MaskUnit::Token).mask(&mut [5, 6], random).len(), 1);
        assert_eq!(masking(MaskUnit::Word).mask(&mut [7, 8], random).len(), 2, "a word is not cut");
    }
}
