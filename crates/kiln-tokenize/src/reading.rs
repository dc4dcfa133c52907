use kiln_files::guarded;
use rayon::prelude::*;
use tokenizers::{NormalizedString, Normalizer, Token, TruncationDirection};

use crate::counting::Count;
use crate::tokenizer::cannot_encode;
use crate::{Error, Tokenizer};

/// The approximate number of bytes of the pieces in which long texts are tokenized.
pub(crate) const PIECE: usize = 1 << 14;

/// A text with more bytes than this is a long text.
pub(crate) const LONG: usize = 2 * PIECE;

/// The tokens of a text, without special tokens.
pub(crate) struct Reading {
    /// The first tokens of the text, or all of them.
    pub encoding: tokenizers::Encoding,
    /// The number of tokens of the text if `whole` is true, otherwise a lower bound.
    pub tokens: usize,
    /// Whether `tokens` counts the whole text.
    pub whole: bool,
}

/// All tokens of a text.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    pub ids: Vec<u32>,
    /// The span of each token in characters.
    pub offsets: Vec<(usize, usize)>,
    /// The number of each token's word. Neighbouring words have different numbers.
    pub word_ids: Vec<Option<usize>>,
}

/// How much of a long text to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// At least this many tokens.
    Tokens(usize),
    /// All tokens are counted, and at most this many are kept.
    Counted(usize),
}

impl Tokenizer {
    /// Tokenizes a text as far as needed. The result is a prefix of the tokens of the whole text, or all of them.
    pub(crate) fn read(&self, text: &str, extent: Extent) -> Result<Reading, Error> {
        if text.len() <= LONG {
            let encoding = self.tokenize(text)?;
            return Ok(Reading { tokens: encoding.len(), whole: true, encoding });
        }
        if self.truncation == TruncationDirection::Left {
            let ids = self.read_ids(text)?;
            return Ok(Reading { encoding: from_ids(&ids, 0), tokens: ids.len(), whole: true });
        }
        let (Extent::Tokens(keep) | Extent::Counted(keep)) = extent;
        let (mut ids, whole) = self.first_ids(text, keep)?;
        let (tokens, whole) = match extent {
            Extent::Counted(_) if !whole => {
                let Count { tokens, exact } = self.count(text)?;
                (tokens.max(ids.len()), exact)
            }
            _ => (ids.len(), whole),
        };
        ids.truncate(keep);
        Ok(Reading { encoding: from_ids(&ids, 0), tokens, whole })
    }

    /// The first ids of a long text, at least `keep` if it has as many, and whether they are all of its ids.
    fn first_ids(&self, text: &str, keep: usize) -> Result<(Vec<u32>, bool), Error> {
        let mut ids = Vec::new();
        let mut pieces = self.cuts.pieces(text, PIECE);
        for piece in pieces.by_ref() {
            if piece.len() > LONG
                && let Some(prefix) = self.stable_prefix(piece, keep - ids.len())?
            {
                ids.extend(prefix);
                return Ok((ids, false));
            }
            ids.extend(self.piece_ids(piece)?);
            if ids.len() >= keep {
                break;
            }
        }
        Ok((ids, pieces.next().is_none()))
    }

    /// The ids of all tokens of a text. Needs little memory besides the ids.
    pub(crate) fn read_ids(&self, text: &str) -> Result<Vec<u32>, Error> {
        if text.len() <= LONG {
            return Ok(self.tokenize(text)?.get_ids().to_vec());
        }
        let mut ids = Vec::new();
        for piece in self.cuts.pieces(text, PIECE) {
            ids.extend(self.piece_ids(piece)?);
        }
        Ok(ids)
    }

    /// All tokens of a text with their spans.
    pub(crate) fn read_spans(&self, text: &str) -> Result<Spans, Error> {
        let spans = |piece: &str| {
            let encode = || self.pipeline.encode_char_offsets(piece, false);
            let encoding = self.guard(|| encode().map_err(|source| cannot_encode(piece, source)))?;
            Ok(Spans {
                ids: encoding.get_ids().to_vec(),
                offsets: encoding.get_offsets().to_vec(),
                word_ids: encoding.get_word_ids().iter().map(|word| word.map(|word| word as usize)).collect(),
            })
        };
        if text.len() <= LONG {
            return spans(text);
        }
        let pieces: Vec<&str> = self.cuts.pieces(text, PIECE).collect();
        let parts = pieces.par_iter().map(|piece| Ok((piece.chars().count(), spans(piece)?)));
        let parts = parts.collect::<Result<Vec<_>, Error>>()?;
        // A pipeline that adds a space before a text, and excludes spaces from spans, keeps the added one in the first
        // token's span. For the first token of a later piece, this is a space of the text.
        let is_left_out = self.byte_level().is_some_and(|level| level.add_prefix_space)
            && spans("a a")?.offsets.last().is_some_and(|(start, _)| *start == 2);
        let mut all = Spans::default();
        let (mut before, mut words) = (0, 0);
        for (characters, Spans { ids, mut offsets, word_ids }) in parts {
            if let Some((start @ 0, end)) = offsets.first_mut().filter(|_| is_left_out && before > 0) {
                (*start, *end) = (1, (*end).max(1));
            }
            all.ids.extend(ids);
            all.offsets.extend(offsets.into_iter().map(|(start, end)| (start + before, end + before)));
            let most = word_ids.iter().flatten().max().map_or(0, |word| word + 1);
            all.word_ids.extend(word_ids.into_iter().map(|word| word.map(|word| word + words)));
            (before, words) = (before + characters, words + most);
        }
        Ok(all)
    }

    /// Tokenizes a text as one piece.
    pub(crate) fn tokenize(&self, text: &str) -> Result<tokenizers::Encoding, Error> {
        self.guard(|| self.pipeline.encode_fast(text, false).map_err(|source| cannot_encode(text, source)))
    }

    /// Runs code of the pipeline. Panics become errors, and all errors name the tokenizer's file.
    pub(crate) fn guard<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        match guarded(work) {
            Err(reason) => Err(Error::Broken { path: self.source.clone(), reason }),
            Ok(Err(Error::Encode { start, source, .. })) => {
                Err(Error::Encode { path: self.source.clone(), start, source })
            }
            Ok(result) => result,
        }
    }

    fn piece_ids(&self, piece: &str) -> Result<Vec<u32>, Error> {
        let shortened = if piece.len() > LONG { self.cuts.shortened(piece) } else { None };
        Ok(self.tokenize(shortened.as_deref().unwrap_or(piece))?.get_ids().to_vec())
    }

    /// The first tokens of a Unigram text that cannot be cut, at least `tokens`, without reading the whole text.
    ///
    /// The best segmentation of the whole text has a border at one of the ends that [`Cuts::ends`](crate::cuts::Cuts::ends)
    /// returns. Up to that border it is the best segmentation of the prefix that ends there. So the tokens that all these
    /// prefixes have in common are also the first tokens of the whole text.
    fn stable_prefix(&self, text: &str, tokens: usize) -> Result<Option<Vec<u32>>, Error> {
        let bytes = tokens.saturating_mul(16).saturating_add(1024);
        let Some(ends) = self.cuts.ends(text, bytes).filter(|_| bytes < text.len() / 2) else { return Ok(None) };
        let tail = &text[ends[0]..ends[ends.len() - 1]];
        let mut normalized = NormalizedString::from(tail);
        if let Some(normalizer) = self.pipeline.get_normalizer() {
            self.guard(|| normalizer.normalize(&mut normalized).map_err(|source| cannot_encode(tail, source)))?;
        }
        if normalized.get().chars().count() != tail.chars().count() {
            return Ok(None);
        }
        let mut common: Option<Vec<(u32, (usize, usize))>> = None;
        for end in ends {
            let prefix = &text[..end];
            let encode = || self.pipeline.encode(prefix, false).map_err(|source| cannot_encode(prefix, source));
            let encoding = self.guard(encode)?;
            let pieces = encoding.get_ids().iter().copied().zip(encoding.get_offsets().iter().copied());
            common = Some(match common {
                None => pieces.collect(),
                Some(common) => {
                    common.into_iter().zip(pieces).take_while(|(a, b)| a == b).map(|(piece, _)| piece).collect()
                }
            });
        }
        let mut common: Vec<u32> = common.unwrap_or_default().into_iter().map(|(id, _)| id).collect();
        // An unknown token at the end may be longer in the whole text.
        common.pop();
        Ok((common.len() >= tokens).then_some(common))
    }
}

/// An encoding with ids only.
pub(crate) fn from_ids(ids: &[u32], type_id: u32) -> tokenizers::Encoding {
    let token = |&id: &u32| Token { id, value: String::new(), offsets: (0, 0) };
    tokenizers::Encoding::from_tokens(ids.iter().map(token).collect(), type_id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::samples::{TOKENIZERS, text};

    fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
        tokenizer.tokenize(text).expect("there is an unknown token").get_ids().to_vec()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn pieces_have_the_tokens_of_the_whole(text in text(0..60), bytes in 1..40_usize) {
            for (name, tokenizer) in TOKENIZERS.iter() {
                let pieces: Vec<&str> = tokenizer.cuts.pieces(&text, bytes).collect();
                prop_assert_eq!(pieces.concat(), text.as_str());
                let joined: Vec<u32> = pieces.iter().flat_map(|piece| ids(tokenizer, piece)).collect();
                prop_assert_eq!(joined, ids(tokenizer, &text), "{} {:?}", name, pieces);
            }
        }

        #[test]
        fn a_prefix_of_unigram_pieces_is_stable(text in prop::collection::vec(
            prop::sample::select(vec!["房", "间", "房间", "干净", "干", "clean", "c", "9", "净"]), 600..900,
        )) {
            let text = text.concat();
            for (name, tokenizer) in TOKENIZERS.iter().filter(|(_, tokenizer)| tokenizer.cuts.ends(&text, 0).is_some()) {
                let prefix = tokenizer.stable_prefix(&text, 2).expect("it encodes");
                // A run of unknown characters is one token, so a prefix may have too few tokens.
                if let Some(prefix) = prefix {
                    prop_assert_eq!(&prefix, &ids(tokenizer, &text)[..prefix.len()], "{}", name);
                }
            }
        }

        #[test]
        fn shortened_words_have_the_same_tokens(parts in prop::collection::vec((text(0..4), 0..400_usize), 1..5)) {
            let text: String = parts.into_iter().map(|(part, letters)| part + &"un7".repeat(letters)).collect();
            for (name, tokenizer) in TOKENIZERS.iter() {
                if let Some(short) = tokenizer.cuts.shortened(&text) {
                    prop_assert!(short.len() < text.len());
                    prop_assert_eq!(ids(tokenizer, &short), ids(tokenizer, &text), "{}", name);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn spans_of_pieces_are_those_of_the_whole(text in text(1..30)) {
            // A text longer than a piece, made of one random text repeated.
            let long = text.repeat(1 + 2 * LONG / text.len());
            for (name, tokenizer) in TOKENIZERS.iter() {
                let whole = tokenizer.pipeline.encode_char_offsets(long.as_str(), false).expect("it encodes");
                let Spans { ids, offsets, word_ids } = tokenizer.read_spans(&long).expect("it encodes");
                prop_assert!(ids == whole.get_ids() && offsets == whole.get_offsets(), "{}", name);
                let goes_on = |at: usize| word_ids[at] == word_ids[at - 1];
                let expected = |at: usize| whole.get_word_ids()[at] == whole.get_word_ids()[at - 1];
                prop_assert!((1..ids.len()).all(|at| goes_on(at) == expected(at)), "{}", name);
                let counted = tokenizer.read(&long, Extent::Counted(7)).expect("it encodes");
                prop_assert_eq!(counted.tokens, whole.len(), "{}", name);
                let some = tokenizer.read(&long, Extent::Tokens(20)).expect("it encodes");
                let kept = some.encoding.len();
                prop_assert!(kept >= 20.min(whole.len()), "{}", name);
                prop_assert_eq!(some.encoding.get_ids(), &whole.get_ids()[..kept], "{}", name);
            }
        }
    }

    /// Checks which kinds of text each pipeline reads in part: otherwise a megabyte is read for 32 tokens.
    #[test]
    fn little_of_a_long_text_is_read() {
        let shapes = ["房间 clean, ", "房间", "clean ", "a", "房", "clean,"];
        for (name, tokenizer) in TOKENIZERS.iter() {
            for shape in shapes {
                let long = shape.repeat((1 << 20) / shape.len());
                let reading = tokenizer.read(&long, Extent::Tokens(32)).expect("it encodes");
                let cut = tokenizer.cuts.pieces(&long, PIECE).all(|piece| piece.len() < LONG);
                let word = tokenizer.cuts.shortened(&long).is_some();
                let prefix = tokenizer.stable_prefix(&long, 32).expect("it encodes").is_some();
                assert_eq!(reading.whole, !(cut || prefix), "{name} {shape}");
                let expected = match (*name, shape) {
                    // Byte-level BPE can be cut only at a space, and there is no bound on what a merge depends on.
                    ("BPE" | "RoBERTa", shape) => shape.contains(' '),
                    ("WordPiece that joins Chinese", shape) => shape.contains(' ') || word,
                    // Consecutive unknown pieces are one token, so no prefix has 32 tokens.
                    ("Unigram" | "XLM-RoBERTa", "a" | "clean,") => continue,
                    _ => true,
                };
                assert_eq!(cut || prefix || word, expected, "{name} {shape}");
            }
        }
    }
}
