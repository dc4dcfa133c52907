use crate::reading::from_ids;
use crate::tokenizer::cannot_encode;
use crate::{Error, Tokenizer};

/// The sizes of a model's embedding tables, under the names of its `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelLimits {
    /// Rows of the word embeddings.
    pub vocab_size: usize,
    /// Rows of the token type embeddings: 2 if the model distinguishes the texts of a pair.
    pub type_vocab_size: usize,
    /// Rows of the position embeddings.
    pub max_position_embeddings: usize,
}

impl Tokenizer {
    /// Checks the tokenizer against a model, and limits it to what the model supports.
    ///
    /// The maximum length is reduced to the number of positions if it is larger. Encoding a pair fails if it needs a token
    /// type that the model does not have.
    ///
    /// # Errors
    /// When the model has no embedding for an id of the vocabulary, of an added token or of the post-processing template, or
    /// for the token type of a single text, or when the special tokens alone exceed the number of positions.
    pub fn for_model(mut self, limits: ModelLimits) -> Result<Self, Error> {
        let ModelLimits { vocab_size, type_vocab_size, max_position_embeddings } = limits;
        let beyond = |id: u32| Error::TokenBeyondModel {
            path: self.source.clone(),
            token: self.token(id).unwrap_or_default(),
            id,
            vocab_size,
        };
        if self.vocab_size > vocab_size {
            return Err(beyond((self.vocab_size - 1) as u32));
        }
        for pair in [false, true] {
            let second = pair.then(|| from_ids(&[], 1));
            let template = self.guard(|| {
                self.pipeline.post_process(from_ids(&[], 0), second, true).map_err(|source| cannot_encode("", source))
            })?;
            if let Some(&id) = template.get_ids().iter().find(|id| **id as usize >= vocab_size) {
                return Err(beyond(id));
            }
            let type_id = template.get_type_ids().iter().copied().max().unwrap_or(0);
            if !pair && type_id as usize >= type_vocab_size {
                return Err(Error::TypeBeyondModel { path: self.source, type_id, type_vocab_size });
            }
        }
        self.type_vocab_size = Some(type_vocab_size);
        let max_length = self.max_length.min(max_position_embeddings);
        self.with_max_length(max_length)
    }

    /// The token types of an encoding, or an error for a type without an embedding in the model.
    pub(crate) fn type_ids(&self, encoding: &tokenizers::Encoding) -> Result<Vec<u32>, Error> {
        let type_ids = encoding.get_type_ids();
        if !self.has_token_types {
            return Ok(vec![0; type_ids.len()]);
        }
        let type_vocab_size = self.type_vocab_size.unwrap_or(usize::MAX);
        match type_ids.iter().copied().find(|id| *id as usize >= type_vocab_size) {
            None => Ok(type_ids.to_vec()),
            Some(type_id) => Err(Error::TypeBeyondModel { path: self.source.clone(), type_id, type_vocab_size }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn tiny(name: &str) -> Tokenizer {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
        Tokenizer::from_folder(&folder).expect("the fixture is whole")
    }

    const LIMITS: ModelLimits = ModelLimits { vocab_size: 14, type_vocab_size: 2, max_position_embeddings: 128 };

    #[test]
    fn the_shorter_of_both_maximum_lengths_counts() {
        assert_eq!(tiny("tiny").for_model(LIMITS).expect("it fits").max_length(), 128);
        let shorter = tiny("tiny").with_max_length(9).and_then(|tokenizer| tokenizer.for_model(LIMITS));
        assert_eq!(shorter.expect("it fits").max_length(), 9);
        let none = tiny("tiny").for_model(ModelLimits { max_position_embeddings: 2, ..LIMITS });
        assert!(none.expect_err("a pair has 3 special tokens").to_string().contains("max_length is 2"));
    }

    #[test]
    fn ids_beyond_the_embeddings_are_refused() {
        let refused =
            tiny("tiny").for_model(ModelLimits { vocab_size: 13, ..LIMITS }).expect_err("there are 14 tokens");
        let message = refused.to_string();
        assert!(
            message.contains("vocab.txt`: the token `##able` has id 13") && message.contains("13 rows"),
            "{message}"
        );
    }

    #[test]
    fn ids_of_the_template_alone_are_checked_too() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tiny-unigram/tokenizer.json");
        let json =
            std::fs::read_to_string(source).expect("the fixture is there").replace(r#""ids": [2]"#, r#""ids": [77]"#);
        std::fs::write(folder.path().join("tokenizer.json"), json).expect("it is writable");
        let tokenizer = Tokenizer::from_folder(folder.path()).expect("the pipeline is well-formed");
        let refused = tokenizer.for_model(LIMITS).expect_err("77 is beyond 14").to_string();
        assert!(refused.contains("tokenizer.json") && refused.contains("id 77"), "{refused}");
    }

    #[test]
    fn a_model_of_one_token_type_takes_no_pair_of_bert() {
        let one = ModelLimits { type_vocab_size: 1, ..LIMITS };
        let tokenizer = tiny("tiny").for_model(one).expect("single texts are possible");
        assert!(tokenizer.encode("房", None).is_ok());
        let refused = tokenizer.encode("房", Some("间")).expect_err("BERT's second text has type 1").to_string();
        assert!(refused.contains("token type 1") && refused.contains("type_vocab_size 1"), "{refused}");
        assert!(tokenizer.encode_context("房", "间", crate::ContextConfig::default()).is_err());
        assert!(tokenizer.assemble(&[5], Some(&[6])).is_err());
        let all_zero = tiny("tiny-unigram").for_model(one).expect("single texts are possible");
        assert!(all_zero.encode("房", Some("间")).is_ok(), "its template gives every token type 0");
    }
}
