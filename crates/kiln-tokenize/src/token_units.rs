use std::ops::Range;

use tokenizers::ModelWrapper;

use crate::reading::Spans;
use crate::units::{UnitTokens, is_modifier, words};
use crate::{Error, Tokenizer, UnitWindow};

impl Tokenizer {
    /// Encodes a text as a whole, and divides it into units of whole tokens. Returns the units as byte ranges with their
    /// windows, as [`Tokenizer::encode_units`] does for given units.
    ///
    /// The tokens are those of transformers' token classification pipeline. A unit of a WordPiece vocabulary is a word of
    /// the pre-tokenizer, as with the pipeline's `aggregation_strategy="first"`. Words of other pre-tokenizers may contain
    /// punctuation or a whole Chinese sentence. There a unit is one of [`words`], or several that share a token.
    ///
    /// # Errors
    /// When a word is out of vocabulary and the tokenizer has no unknown token.
    pub fn encode_by_tokens(&self, text: &str) -> Result<(Vec<Range<usize>>, Vec<UnitWindow>), Error> {
        let spans = self.read_spans(text)?;
        let is_word_piece = matches!(self.pipeline.get_model(), ModelWrapper::WordPiece(_));
        let (units, tokens) = divided(text, spans, is_word_piece, self.max_length - self.special_tokens(false));
        let windows = self.windows(text, &tokens)?;
        Ok((units, windows))
    }
}

/// Groups the tokens of a text into units of at most `room` tokens.
fn divided(text: &str, spans: Spans, by_word_ids: bool, room: usize) -> (Vec<Range<usize>>, UnitTokens) {
    let bytes: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let words = if by_word_ids { Vec::new() } else { words(text) };
    let word_starts: Vec<usize> = words.into_iter().map(|word| word.start).collect();
    let mut units: Vec<Range<usize>> = Vec::new();
    let mut tokens = UnitTokens::default();
    let mut last_word = None;
    let byte = |character: usize| bytes.get(character).copied().unwrap_or(text.len());
    for ((id, (start, end)), word) in spans.ids.into_iter().zip(spans.offsets).zip(spans.word_ids) {
        let token = &text[byte(start)..byte(end.max(start))];
        let start = byte(start) + (token.len() - token.trim_start().len());
        let end = start + token.trim().len();
        let goes_on = match units.last() {
            // One of several tokens that share a character, or a token of white space alone.
            Some(unit) if start < unit.end || start == end || unit.start == unit.end => true,
            Some(_) if by_word_ids => word.is_some() && word == last_word,
            Some(_) => word_starts.binary_search(&start).is_err(),
            None => false,
        };
        match units.last_mut() {
            Some(unit) if unit.start == unit.end => *unit = start..end,
            Some(_) if goes_on && start == end => {}
            Some(unit) if goes_on => unit.end = unit.end.max(end),
            _ => {
                units.push(start..end);
                tokens.ends.push(tokens.ids.len());
            }
        }
        last_word = word;
        let unit_start = tokens.start(units.len() - 1);
        // The tag is that of the first token, so a unit that is longer than a window can lose its end.
        if tokens.ids.len() - unit_start < room {
            tokens.ids.push(id);
        }
        if let Some(end) = tokens.ends.last_mut() {
            *end = tokens.ids.len();
        }
    }
    if units.first().is_some_and(Range::is_empty) {
        return (Vec::new(), UnitTokens::default());
    }
    // An accent that the normalizer removes belongs to the letter before it.
    for at in 0..units.len() {
        let next = units.get(at + 1).map_or(text.len(), |next| next.start);
        let unit = &mut units[at];
        let modifiers = text[unit.end..next].chars().take_while(|char| is_modifier(*char));
        unit.end += modifiers.map(char::len_utf8).sum::<usize>();
    }
    (units, tokens)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::samples::{TOKENIZERS, text};

    fn tiny(name: &str) -> Tokenizer {
        Tokenizer::from_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)).expect("it is whole")
    }

    /// The units of a text with their first tokens, in one window.
    fn units<'a>(tokenizer: &Tokenizer, text: &'a str) -> Vec<(&'a str, u32)> {
        let (units, windows) = tokenizer.encode_by_tokens(text).expect("it encodes");
        let [window] = windows.as_slice() else { panic!("one window is enough") };
        assert_eq!(window.encoding, tokenizer.encode(text, None).expect("it encodes"));
        let first = window.units.iter().map(|(_, token)| window.encoding.input_ids[*token]);
        units.into_iter().map(|unit| &text[unit]).zip(first).collect()
    }

    /// As `aggregate_words` of transformers' pipeline groups them, which leaves out the accent of `cafe`.
    #[test]
    fn word_pieces_are_grouped_as_by_the_pipeline() {
        let tokenizer = tiny("tiny");
        let text = "房间 cleaners\u{1} unable!cafe\u{301} 10€-x";
        let expected = [
            ("房", 5),
            ("间", 6),
            ("cleaners", 7),
            ("unable", 12),
            ("!", 11),
            ("cafe\u{301}", 8),
            ("10€", 1),
            ("-", 1),
            ("x", 1),
        ];
        assert_eq!(units(&tokenizer, text), expected);
        assert!(units(&tokenizer, " \u{1}\u{200b}").is_empty());
    }

    #[test]
    fn a_sentence_piece_belongs_to_one_unit() {
        assert_eq!(
            units(&tiny("tiny-unigram"), "房间 clean干净房"),
            [("房间", 5), ("clean", 8), ("干净", 9), ("房", 6)]
        );
        let tokens = |text: &str| units(&tiny("tiny-bpe"), text).into_iter().map(|(unit, _)| unit.to_owned()).collect();
        let units: Vec<String> = tokens("don't  go, 房间");
        assert_eq!(units, ["don", "'", "t", "go", ",", "房间"]);
    }

    #[test]
    fn a_unit_longer_than_a_window_loses_its_end() {
        let tokenizer = tiny("tiny").with_max_length(5).expect("5 is enough");
        let (units, windows) = tokenizer.encode_by_tokens("房 cleanersersers 间").expect("it encodes");
        assert_eq!(units.len(), 3);
        let ids: Vec<&[u32]> = windows.iter().map(|window| window.encoding.input_ids.as_slice()).collect();
        assert_eq!(ids, [&[2, 5, 3][..], &[2, 7, 9, 10, 3], &[2, 6, 3]]);
    }

    proptest! {
        /// Units are in order and do not overlap, and each has a first token in a window.
        #[test]
        fn every_unit_is_in_a_window(text in text(0..40), max_length in 6..20_usize) {
            for (name, tokenizer) in TOKENIZERS.iter() {
                let tokenizer = tokenizer.clone().with_max_length(max_length).expect("6 is enough");
                let (units, windows) = tokenizer.encode_by_tokens(&text).expect("it encodes");
                prop_assert!(units.iter().all(|unit| unit.start < unit.end), "{} {:?} {:?}", name, text, units);
                prop_assert!(units.windows(2).all(|pair| pair[0].end <= pair[1].start), "{} {:?} {:?}", name, text, units);
                let own: Vec<usize> = windows.iter().flat_map(|window| window.own.clone()).collect();
                prop_assert_eq!(own, (0..units.len()).collect::<Vec<_>>(), "{}", name);
                for window in windows {
                    prop_assert!(window.own.clone().all(|unit| window.units.iter().any(|(own, _)| *own == unit)));
                    let places = window.units.iter().map(|(_, start)| *start).chain([window.end]).collect::<Vec<_>>();
                    prop_assert!(places.windows(2).all(|pair| pair[0] < pair[1]) && window.end <= max_length);
                }
            }
        }
    }
}
