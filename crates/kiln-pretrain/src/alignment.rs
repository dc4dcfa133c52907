//! Alignment of the tokens of two vocabularies by the characters that they share.

use std::ops::Range;

use kiln_tokenize::{Tokenizer, is_cjk};

use crate::Error;
use crate::masking::{SPACE_MARK, marks_spaces};

/// Turns the ids of a tokenizer back into text.
#[derive(Clone, Debug)]
pub(crate) struct Speller<'a> {
    tokenizer: &'a Tokenizer,
    /// Whether the vocabulary marks a space before a token with `▁`. Otherwise, tokens without `##` begin a word.
    marks_spaces: bool,
}

/// The text of a special token, such as `[UNK]`.
const UNKNOWN: char = '\u{fffd}';

impl<'a> Speller<'a> {
    /// Prepares a tokenizer.
    ///
    /// # Errors
    /// When the tokenizer is byte-level: a token may be a part of a character.
    pub fn new(tokenizer: &'a Tokenizer) -> Result<Self, Error> {
        if tokenizer.is_byte_level() {
            return Err(Error::ByteLevel);
        }
        let tokens: Vec<String> = (0..tokenizer.vocab_size() as u32).filter_map(|id| tokenizer.token(id)).collect();
        Ok(Self { tokenizer, marks_spaces: marks_spaces(tokens.iter().map(String::as_str), SPACE_MARK) })
    }

    /// The text of the ids, and the range of its characters that belongs to each id.
    pub fn spell(&self, ids: &[u32]) -> (String, Vec<Range<usize>>) {
        let mut text: Vec<char> = Vec::new();
        let mut spans = Vec::with_capacity(ids.len());
        for &id in ids {
            let token = self.tokenizer.token(id).unwrap_or_default();
            let is_text = !self.tokenizer.is_special(id);
            let part = if is_text { self.tokenizer.token_text(id) } else { UNKNOWN.to_string() };
            let begins_word = match self.marks_spaces {
                true => token.starts_with(SPACE_MARK),
                // WordPiece does not keep the spaces between Chinese characters.
                false => {
                    !token.starts_with("##")
                        && part.starts_with(is_spaced)
                        && text.last().copied().is_some_and(is_spaced)
                }
            };
            if begins_word && !text.is_empty() {
                text.push(' ');
            }
            let start = text.len();
            text.extend(part.chars());
            spans.push(start..text.len());
        }
        (text.into_iter().collect(), spans)
    }
}

/// Whether words of such characters are separated by spaces.
fn is_spaced(char: char) -> bool {
    char.is_alphanumeric() && !is_cjk(char)
}

/// For each span, the range of pieces that share a character with it. Spans and pieces are in the order of the text. A piece
/// without characters belongs to no span.
pub(crate) fn aligned(spans: &[Range<usize>], pieces: &[[usize; 2]]) -> Vec<Range<usize>> {
    let mut first = 0;
    let of_span = |span: &Range<usize>| {
        while pieces.get(first).is_some_and(|[_, end]| *end <= span.start) {
            first += 1;
        }
        let is_shared = |[start, end]: &&[usize; 2]| *start < span.end && *end > span.start;
        let shared = pieces[first..].iter().take_while(is_shared).count();
        first..first + shared
    };
    spans.iter().map(of_span).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer(name: &str) -> Tokenizer {
        let folder = format!(concat!(env!("CARGO_MANIFEST_DIR"), "/../kiln-tokenize/tests/{}"), name);
        Tokenizer::from_folder(folder.as_ref()).expect("the fixture is whole")
    }

    #[test]
    fn tokens_are_spelled_as_text() {
        for (name, text, spelled) in [
            ("tiny", "房间 clean 房 cleaner", "房间clean房cleaner"),
            ("tiny", "clean cleaner 😀 房", "clean cleaner\u{fffd}房"),
            ("tiny-unigram", "房间 clean", "房间 clean"),
        ] {
            let tokenizer = tokenizer(name);
            let ids = tokenizer.pieces(&[text]).expect("there is an unknown token").remove(0);
            let (found, spans) = Speller::new(&tokenizer).expect("no bytes").spell(&ids);
            assert_eq!(found, spelled, "{name}");
            let characters: Vec<char> = found.chars().collect();
            for (id, span) in ids.iter().zip(spans) {
                let part: String = characters[span].iter().collect();
                assert!(part == tokenizer.token_text(*id) || part == "\u{fffd}", "{name}: {part}");
            }
        }
    }

    #[test]
    fn pieces_are_found_by_their_characters() {
        // Spans: four characters, a word. Pieces: a special token, two characters, one, the word with its space, another.
        let spans = [0..1, 1..2, 2..3, 3..4, 5..10];
        let pieces = [[0, 0], [0, 2], [2, 3], [4, 10], [0, 0]];
        assert_eq!(aligned(&spans, &pieces), [1..2, 1..2, 2..3, 3..3, 3..4]);
        assert_eq!(aligned(&spans, &[[0, 10]]), vec![0..1; 5]);
        assert_eq!(aligned(&[0..4, 4..9], &[[0, 1], [1, 3], [3, 9]]), [0..3, 2..3]);
        assert_eq!(aligned(&spans, &[]), vec![0..0; 5]);
    }
}
