use rayon::prelude::*;

use crate::config::SpecialToken;
use crate::reading::from_ids;
use crate::tokenizer::cannot_encode;
use crate::{Encoding, Error, Tokenizer};

impl Tokenizer {
    /// Tokenizes texts in parallel on rayon's thread pool, without special tokens and without truncation.
    ///
    /// # Errors
    /// When a word is out of vocabulary and the tokenizer has no unknown token.
    pub fn pieces<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Vec<u32>>, Error> {
        texts.par_iter().map(|text| self.read_ids(text.as_ref())).collect()
    }

    /// Adds the special tokens to the ids of a text or of a pair, without truncation. Also returns the positions of the
    /// first token of each text.
    ///
    /// # Errors
    /// When the tokenizer's template fails, or the model has no embedding for the second text's token type.
    pub fn assemble(&self, first: &[u32], second: Option<&[u32]>) -> Result<(Encoding, usize, usize), Error> {
        let second_ids = second.map(|second| from_ids(second, 1));
        let whole = self.guard(|| {
            let whole = self.pipeline.post_process(from_ids(first, 0), second_ids, true);
            whole.map_err(|source| cannot_encode("", source))
        })?;
        let special = whole.get_special_tokens_mask();
        let after = |start: usize| special[start..].iter().position(|&special| special == 0).map(|at| start + at);
        let first_place = after(0).unwrap_or(special.len());
        let second_place = after((first_place + first.len()).min(special.len())).unwrap_or(special.len());
        let encoding = Encoding {
            input_ids: whole.get_ids().to_vec(),
            token_type_ids: self.type_ids(&whole)?,
            full_length: whole.len(),
            full_length_is_exact: true,
        };
        Ok((encoding, first_place, second_place))
    }

    /// The number of special tokens that [`Tokenizer::assemble`] adds.
    pub fn num_special_tokens(&self, pair: bool) -> usize {
        self.special_tokens(pair)
    }

    /// The id of the mask token, if the vocabulary has one.
    pub fn mask_token_id(&self) -> Option<u32> {
        let named = self.special_tokens.mask_token.as_ref().map(SpecialToken::name);
        named.into_iter().chain(["[MASK]", "<mask>"]).find_map(|token| self.pipeline.token_to_id(token))
    }

    /// A token as it is in the vocabulary, including `##` or `▁`.
    pub fn token(&self, id: u32) -> Option<String> {
        self.pipeline.id_to_token(id)
    }

    /// Whether the pipeline is byte-level, as those of GPT-2 and RoBERTa are.
    pub fn is_byte_level(&self) -> bool {
        self.byte_level().is_some()
    }

    /// The text of a token, without `##`, `▁` or the space before it. A byte-level token that is a part of a character is
    /// shown as `�`.
    pub fn token_text(&self, id: u32) -> String {
        let token = self.token(id).unwrap_or_default();
        if self.is_byte_level() && !self.is_special(id) {
            return self.decode(&[id]).unwrap_or(token).trim_start().to_owned();
        }
        token.trim_start_matches("##").trim_start_matches('▁').to_owned()
    }

    /// Whether a token is a special token.
    pub fn is_special(&self, id: u32) -> bool {
        self.token(id).is_some_and(|token| self.pipeline.get_added_vocabulary().is_special_token(&token))
    }

    /// Decodes tokens to text, without special tokens. Ids that are not in the vocabulary are skipped.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        self.guard(|| self.pipeline.decode(ids, true).map_err(|source| cannot_encode("", source)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::samples::TOKENIZERS;

    fn tiny(name: &str) -> Tokenizer {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
        Tokenizer::from_folder(&folder).expect("the fixture is whole")
    }

    #[test]
    fn assembled_pieces_are_an_encoding() {
        for name in ["tiny", "tiny-unigram"] {
            let tokenizer = tiny(name);
            let pieces = tokenizer.pieces(&["房间 clean", "间", ""]).expect("there is an unknown token");
            let (single, first, _) = tokenizer.assemble(&pieces[0], None).expect("it has a template");
            assert_eq!(single, tokenizer.encode("房间 clean", None).expect("there is an unknown token"));
            assert_eq!(single.input_ids.len(), pieces[0].len() + tokenizer.num_special_tokens(false));
            let pair = tokenizer.assemble(&pieces[0], Some(&pieces[1])).expect("it has a template");
            assert_eq!(pair.0, tokenizer.encode("房间 clean", Some("间")).expect("there is an unknown token"));
            for (encoding, first, second) in [(single, first, None), (pair.0, pair.1, Some(pair.2))] {
                assert_eq!(encoding.input_ids[first..][..pieces[0].len()], pieces[0]);
                assert!(second.is_none_or(|second| encoding.input_ids[second..][..pieces[1].len()] == pieces[1]));
            }
        }
    }

    #[test]
    fn special_tokens_are_known() {
        let tokenizer = tiny("tiny");
        assert!(tokenizer.is_special(tokenizer.pad_token_id()));
        assert_eq!(tokenizer.token(5).as_deref(), Some("房"));
        assert!(!tokenizer.is_special(5) && !tokenizer.is_special(999));
        assert_eq!(tokenizer.decode(&[5, 6]).expect("both are known"), "房 间");
        assert_eq!([5, 9, 0].map(|id| tokenizer.token_text(id)), ["房", "er", "[PAD]"]);
    }

    #[test]
    fn tokens_of_bytes_are_shown_as_text() {
        let (_, tokenizer) = TOKENIZERS.iter().find(|(name, _)| *name == "BPE").expect("it is one of them");
        let ids = tokenizer.pieces(&["a clean 房"]).expect("every byte is known").remove(0);
        let texts: Vec<String> = ids.iter().map(|id| tokenizer.token_text(*id)).collect();
        assert_eq!(texts[..2], ["a", "clean"], "{texts:?}");
        assert_eq!(tokenizer.token_text(tokenizer.pad_token_id()), "<pad>");
    }
}
