use std::ops::Range;

use rayon::prelude::*;

use crate::reading::{Extent, Spans, from_ids};
use crate::tokenizer::cannot_encode;
use crate::units::is_cjk;
use crate::{Encoding, Error, Tokenizer};

/// A question and a part of its context, which together fit into the maximum length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextWindow {
    /// The encoding of the window, including special tokens.
    pub encoding: Encoding,
    /// The position of the first token of the context's part.
    pub first: usize,
    /// The span of each token of that part in the context, in characters.
    pub spans: Vec<(usize, usize)>,
    /// The span of each token's word, as far as the word is in this window. The tokenizer decides on the words. In a word
    /// with Chinese characters or kana, each token counts as a word: for SentencePiece, such a word may be a whole sentence.
    pub words: Vec<(usize, usize)>,
}

/// How a context is divided into windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextConfig {
    /// The number of tokens that neighbouring windows share, at most half of the room for the context.
    pub stride: usize,
    /// The maximum number of tokens of a question. A longer question is truncated.
    pub max_question_length: usize,
    /// The maximum number of tokens of a window, including special tokens. The tokenizer's own limit also applies.
    pub max_length: usize,
}

impl Default for ContextConfig {
    /// The settings of BERT's authors for SQuAD: a stride of 128, and questions of up to 64 tokens. The tokenizer alone
    /// limits the length of a window.
    fn default() -> Self {
        Self { stride: 128, max_question_length: 64, max_length: usize::MAX }
    }
}

impl ContextWindow {
    /// Shifts the spans for a context that has `characters` more characters before this one.
    pub fn behind(mut self, characters: usize) -> Self {
        for (start, end) in self.spans.iter_mut().chain(&mut self.words) {
            (*start, *end) = (*start + characters, *end + characters);
        }
        self
    }

    /// The first and last token of a passage of the context, given in characters, if all of it is in this window.
    pub fn tokens(&self, passage: Range<usize>) -> Option<(usize, usize)> {
        let start = self.spans.iter().position(|&(_, end)| passage.start < end)?;
        let end = self.spans.iter().rposition(|&(start, end)| start < passage.end && start < end)?;
        let whole = self.spans[start].0 <= passage.start && passage.end <= self.spans[end].1;
        // Without all of the passage in the window, the first token begins after its start, or the last one ends before its
        // end.
        (whole && start <= end).then_some((self.first + start, self.first + end))
    }
}

impl Tokenizer {
    /// Encodes a question with its context. If they exceed the maximum length, the context is divided into overlapping
    /// windows.
    ///
    /// # Errors
    /// When a word is out of vocabulary and the tokenizer has no unknown token, or when the model has no embedding for the
    /// context's token type.
    pub fn encode_context(
        &self,
        question: &str,
        context: &str,
        config: ContextConfig,
    ) -> Result<Vec<ContextWindow>, Error> {
        let special_tokens = self.special_tokens(true);
        let max_length = self.max_length.min(config.max_length);
        // The question takes at most half of a window, so that there is room for the context.
        let most = config.max_question_length.min(max_length.saturating_sub(special_tokens) / 2);
        let mut asked = self.read(question, Extent::Tokens(most))?.encoding;
        asked.truncate(most, 0, tokenizers::TruncationDirection::Right);
        asked.take_overflowing();
        let Spans { ids, offsets, word_ids } = self.read_spans(context)?;
        let room = max_length.saturating_sub(special_tokens + asked.len()).max(1);
        let words = word_numbers(&word_ids, &offsets, context);
        let step = room - config.stride.min(room / 2);
        let mut windows = Vec::new();
        for start in (0..).step_by(step) {
            let part = start..(start + room).min(ids.len());
            let (encoding, first) = self.context_window(asked.clone(), &ids[part.clone()], context)?;
            let full_length = asked.len() + ids.len() + special_tokens;
            windows.push(ContextWindow {
                encoding: Encoding { full_length, ..encoding },
                first,
                words: window_words(&words[part.clone()], &offsets[part.clone()]),
                spans: offsets[part].to_vec(),
            });
            if start + room >= ids.len() {
                break;
            }
        }
        Ok(windows)
    }

    /// Like [`Tokenizer::encode_context`] for many questions, in parallel on rayon's thread pool.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_context`], for any of the questions.
    pub fn encode_contexts<'a>(
        &self,
        questions: impl IntoIterator<Item = (&'a str, &'a str)>,
        config: ContextConfig,
    ) -> Result<Vec<Vec<ContextWindow>>, Error> {
        let questions: Vec<_> = questions.into_iter().collect();
        questions.into_par_iter().map(|(question, context)| self.encode_context(question, context, config)).collect()
    }

    /// The encoding of a question and a part of its context, and the position of the first token of that part.
    fn context_window(
        &self,
        question: tokenizers::Encoding,
        part: &[u32],
        context: &str,
    ) -> Result<(Encoding, usize), Error> {
        let question_tokens = question.len();
        let both = self.guard(|| {
            let both = self.pipeline.post_process(question, Some(from_ids(part, 1)), true);
            both.map_err(|source| cannot_encode(context, source))
        })?;
        let real = both.get_special_tokens_mask().iter().enumerate().filter(|(_, special)| **special == 0);
        let first = real.map(|(at, _)| at).nth(question_tokens).unwrap_or(both.len());
        let encoding = Encoding {
            input_ids: both.get_ids().to_vec(),
            token_type_ids: self.type_ids(&both)?,
            full_length: both.len(),
            full_length_is_exact: true,
        };
        Ok((encoding, first))
    }
}

/// The number of each token's word. Neighbouring words have different numbers.
fn word_numbers(ids: &[Option<usize>], spans: &[(usize, usize)], context: &str) -> Vec<usize> {
    let characters: Vec<char> = context.chars().collect();
    let tokens: Vec<usize> = (0..ids.len()).collect();
    let mut numbers = Vec::with_capacity(ids.len());
    let mut number = 0;
    for word in tokens.chunk_by(|&a, &b| ids[a].is_some() && ids[a] == ids[b]) {
        let (first, last) = (spans[word[0]].0, spans[word[word.len() - 1]].1);
        let is_spaced = !characters.get(first..last).is_some_and(|word| word.iter().copied().any(is_cjk));
        for _ in word {
            number += usize::from(!is_spaced);
            numbers.push(number);
        }
        number += 1;
    }
    numbers
}

/// The span of the word of each token of a window.
fn window_words(numbers: &[usize], spans: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let tokens: Vec<usize> = (0..spans.len()).collect();
    let words = tokens.chunk_by(|&a, &b| numbers[a] == numbers[b]);
    words.flat_map(|word| word.iter().map(|_| (spans[word[0]].0, spans[word[word.len() - 1]].1))).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn tiny(max_length: usize) -> Tokenizer {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tiny");
        Tokenizer::from_folder(&folder)
            .and_then(|tokenizer| tokenizer.with_max_length(max_length))
            .expect("it is whole")
    }

    #[test]
    fn a_passage_is_found_by_its_characters() {
        let windows = tiny(64).encode_context("房间", "间 Clean 房间", ContextConfig::default()).expect("all encode");
        let [window] = windows.as_slice() else { panic!("one window is enough") };
        assert_eq!(window.encoding.input_ids[..5], [2, 5, 6, 3, 6]);
        assert_eq!(window.encoding.token_type_ids[3..5], [0, 1]);
        assert_eq!(window.first, 4);
        assert_eq!((window.spans[0], window.spans[1].0), ((0, 1), 2));
        let (start, end) = window.tokens(2..7).expect("the word is there");
        assert_eq!((window.spans[start - 4].0, window.spans[end - 4].1), (2, 7));
        assert_eq!(
            window.tokens(8..10),
            Some((window.first + window.spans.len() - 2, window.first + window.spans.len() - 1))
        );
        assert_eq!(window.tokens(8..11), None, "it ends behind the context");
    }

    #[test]
    fn tokens_know_their_words() {
        let config = ContextConfig { max_length: 8, stride: 1, ..ContextConfig::default() };
        let windows = tiny(64).encode_context("房", "cleaners 房间 unable", config).expect("all encode");
        // clean ##er ##s 房 | 房 间 un ##able
        let words: Vec<_> = windows.iter().map(|window| window.words.clone()).collect();
        assert_eq!(words, [vec![(0, 8), (0, 8), (0, 8), (9, 10)], vec![(9, 10), (10, 11), (12, 18), (12, 18)]]);
        // In a window that has a part of a word, the word's span is that part.
        let config = ContextConfig { max_length: 6, stride: 0, ..ContextConfig::default() };
        let windows = tiny(64).encode_context("房", "cleaners", config).expect("all encode");
        let words: Vec<_> = windows.iter().map(|window| window.words.clone()).collect();
        assert_eq!(words, [vec![(0, 7), (0, 7)], vec![(7, 8)]]);
    }

    #[test]
    fn sentence_pieces_of_chinese_are_words_each() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tiny-unigram");
        let tokenizer = Tokenizer::from_folder(&folder).expect("it is whole");
        let windows = tokenizer.encode_context("房", "房间房间", ContextConfig::default()).expect("all encode");
        assert_eq!(windows[0].words, windows[0].spans);
    }

    #[test]
    fn windows_overlap_and_cover_the_context() {
        let context = "房间".repeat(20);
        for (max_length, stride) in [(12, 3), (9, 128), (7, 0)] {
            let config = ContextConfig { stride, max_question_length: 2, ..ContextConfig::default() };
            let windows = tiny(max_length).encode_context("房间房间", &context, config).expect("all encode");
            let mut covered = 0;
            for window in &windows {
                assert!(window.encoding.input_ids.len() <= max_length);
                assert_eq!(window.encoding.input_ids[..4], [2, 5, 6, 3], "the question is cut to two tokens");
                assert!(window.spans[0].0 <= covered, "no character is left out");
                covered = window.spans.last().expect("a part").1;
            }
            assert_eq!(covered, 40);
            let inside = windows.iter().filter(|window| window.tokens(20..21).is_some()).count();
            assert!(inside >= 1, "{inside}");
        }
        assert_eq!(tiny(12).encode_context("房", "", ContextConfig::default()).expect("it encodes").len(), 1);
    }
}
