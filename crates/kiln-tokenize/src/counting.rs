//! Counts the tokens of a text without keeping them: the text is divided at every place that [`Cuts`] allows, and the counts
//! of short parts are cached.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::reading::LONG;
use crate::{Error, Tokenizer};

/// The number of bytes that one thread counts at a time.
const CHUNK: usize = 1 << 20;

/// The maximum number of bytes of a stretch that cannot be cut: it is tokenized as one piece, which takes about 100 bytes of
/// memory per byte. The rest of a longer stretch is not counted.
pub(crate) const STRETCH: usize = 1 << 18;

/// The maximum number of bytes of a part whose count is cached.
const SHORT: usize = 64;

/// The maximum number of cached counts per chunk.
const REMEMBERED: usize = 1 << 16;

/// The number of tokens of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    /// The number of tokens, without special tokens.
    pub tokens: usize,
    /// Whether all of the text was counted. Otherwise `tokens` is a lower bound.
    pub exact: bool,
}

impl Count {
    const ZERO: Self = Self { tokens: 0, exact: true };

    fn add(self, other: Self) -> Self {
        Self { tokens: self.tokens + other.tokens, exact: self.exact && other.exact }
    }
}

impl Tokenizer {
    /// Counts the tokens of a text in parallel on rayon's thread pool. Memory does not grow with the text.
    pub(crate) fn count(&self, text: &str) -> Result<Count, Error> {
        self.count_in(text, CHUNK)
    }

    fn count_in(&self, text: &str, chunk: usize) -> Result<Count, Error> {
        let chunks: Vec<&str> = self.cuts.pieces(text, chunk).collect();
        let counts = chunks.par_iter().map(|chunk| {
            let mut counter = Counter { tokenizer: self, remembered: HashMap::new() };
            self.cuts.pieces(chunk, 1).try_fold(Count::ZERO, |sum, piece| Ok(sum.add(counter.piece(piece)?)))
        });
        counts.try_reduce(|| Count::ZERO, |a, b| Ok(a.add(b)))
    }
}

/// Counts the tokens of the parts of a text, and caches the counts of short parts.
struct Counter<'a> {
    tokenizer: &'a Tokenizer,
    remembered: HashMap<&'a str, usize>,
}

impl<'a> Counter<'a> {
    /// Counts a piece between two cuts.
    fn piece(&mut self, piece: &'a str) -> Result<Count, Error> {
        if piece.len() <= SHORT {
            return Ok(Count { tokens: self.tokens(piece)?, exact: true });
        }
        let shortened = if piece.len() > LONG { self.tokenizer.cuts.shortened(piece) } else { None };
        if let Some(short) = shortened.filter(|short| short.len() <= STRETCH) {
            return Ok(Count { tokens: self.tokenizer.tokenize(&short)?.len(), exact: true });
        }
        let mut sum = Count::ZERO;
        for section in self.tokenizer.cuts.sections(piece) {
            sum = sum.add(self.section(section)?);
        }
        Ok(sum)
    }

    /// Counts a section of a piece: the tokens of its text with the context, minus the tokens of the context.
    fn section(&mut self, section: Section<'a>) -> Result<Count, Error> {
        let Section { context, text } = section;
        let before = if context == 0 { 0 } else { self.tokens(&text[..context])? };
        let mut end = text.len().min(context + STRETCH);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let tokens = self.tokens(&text[..end])?;
        Ok(Count { tokens: tokens - before.min(tokens), exact: end == text.len() })
    }

    fn tokens(&mut self, part: &'a str) -> Result<usize, Error> {
        if let Some(&tokens) = self.remembered.get(part) {
            return Ok(tokens);
        }
        let tokens = self.tokenizer.tokenize(part)?.len();
        if part.len() <= SHORT && self.remembered.len() < REMEMBERED {
            self.remembered.insert(part, tokens);
        }
        Ok(tokens)
    }
}

/// A part of a piece, with the character before it as its context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Section<'a> {
    /// The number of bytes of `text` that belong to the previous section: one character, or 0.
    pub context: usize,
    /// The context and the section.
    pub text: &'a str,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::samples::{TOKENIZERS, text};

    fn whole(tokenizer: &Tokenizer, text: &str) -> usize {
        tokenizer.tokenize(text).expect("there is an unknown token").len()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_count_is_that_of_the_whole(text in text(0..60), chunk in 1..200_usize) {
            for (name, tokenizer) in TOKENIZERS.iter() {
                let count = tokenizer.count_in(&text, chunk).expect("there is an unknown token");
                prop_assert_eq!(count, Count { tokens: whole(tokenizer, &text), exact: true }, "{}", name);
            }
        }

        #[test]
        fn a_text_without_spaces_is_counted_in_sections(parts in prop::collection::vec(
            prop::sample::select(vec!["房", "间", "房间", "干净", "干", "clean", "c", "9", "净", "，", "稀", "<s>", "か"]), 0..300,
        )) {
            let text = parts.concat();
            for (name, tokenizer) in TOKENIZERS.iter() {
                let count = tokenizer.count_in(&text, 16).expect("there is an unknown token");
                prop_assert_eq!(count, Count { tokens: whole(tokenizer, &text), exact: true }, "{}", name);
            }
        }
    }

    /// Long parts would need gigabytes of memory for a text of 100 MB.
    #[test]
    fn no_part_of_a_long_text_is_long() {
        for (name, tokenizer) in TOKENIZERS.iter() {
            for shape in ["房间干净，", "房间 clean ", "净房间净净"] {
                let long = shape.repeat((1 << 20) / shape.len());
                let pieces = tokenizer.cuts.pieces(&long, 1);
                let longest = pieces.flat_map(|piece| tokenizer.cuts.sections(piece)).map(|section| section.text.len());
                let bounded = longest.max() < Some(SHORT);
                let expected =
                    shape.contains(' ') || !matches!(*name, "BPE" | "RoBERTa" | "WordPiece that joins Chinese");
                assert_eq!(bounded, expected, "{name} {shape}");
            }
        }
    }

    #[test]
    fn a_stretch_without_a_place_to_cut_is_counted_in_part() {
        for (name, tokenizer) in TOKENIZERS.iter() {
            let long = "a".repeat(2 * STRETCH);
            let count = tokenizer.count(&long).expect("there is an unknown token");
            let word = name.contains("WordPiece");
            assert_eq!(count.exact, word, "{name}");
            assert!(if word { count.tokens == 1 } else { count.tokens >= 1 }, "{name}: {count:?}");
            let encoding = tokenizer.encode_counted(&("房 ".repeat(LONG) + &long), None).expect("it encodes");
            assert_eq!(encoding.full_length_is_exact, word, "{name}");
            assert!(encoding.full_length > LONG, "{name}");
        }
    }
}
