use std::path::Path;

use tokenizers::models::wordpiece::WordPiece;

use crate::Error;
use crate::class::Class;
use crate::config::{SpecialToken, TokenizerConfig};

/// Reads a BERT vocabulary, one token per line. WordPiece splits words by longest match first.
pub(crate) fn from_vocab(folder: &Path, vocab: &[u8], config: &TokenizerConfig) -> Result<WordPiece, Error> {
    let invalid = |source| Error::Pipeline { path: folder.join("vocab.txt"), source };
    let vocab = WordPiece::read_bytes(vocab).map_err(invalid)?;
    let tokens = Class::Bert.special_tokens(config);
    let unk = tokens.unk_token.as_ref().map(SpecialToken::name).unwrap_or_default();
    if !vocab.contains_key(unk) {
        let (folder, tried) = (folder.to_owned(), format!("`{unk}`"));
        return Err(Error::NoSpecialToken { folder, role: "unk_token", tried });
    }
    WordPiece::builder().vocab(vocab).unk_token(unk.to_owned()).build().map_err(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline;

    const VOCAB: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n房\n间\ncafe\ncafé\nCafé\nun\n##able\n##房\n!\n";

    fn pipeline(folder: &Path, vocab: &[u8], config: &TokenizerConfig) -> Result<tokenizers::Tokenizer, Error> {
        let mut pipeline = tokenizers::Tokenizer::new(from_vocab(folder, vocab, config)?);
        pipeline::apply(&mut pipeline, Class::Bert, &folder.join("vocab.txt"), config)?;
        Ok(pipeline)
    }

    fn ids(config: &str, text: &str) -> Vec<u32> {
        let config = TokenizerConfig {
            settings: serde_json::from_str(config).expect("the settings are well-formed"),
            ..TokenizerConfig::default()
        };
        let pipeline = pipeline(Path::new("vocab"), VOCAB.as_bytes(), &config).expect("the vocabulary is whole");
        pipeline.encode_fast(text, false).expect("there is an unknown token").get_ids().to_vec()
    }

    #[test]
    fn words_are_split_by_longest_match_first() {
        assert_eq!(ids("{}", "unable  able\tun!"), [9, 10, 1, 9, 12]);
        assert_eq!(ids("{}", "\u{1f600}un"), [1]);
    }

    #[test]
    fn lower_casing_strips_accents_unless_told_otherwise() {
        assert_eq!(ids("{}", "Café"), [6]);
        assert_eq!(ids(r#"{"strip_accents": false}"#, "Café"), [7]);
        assert_eq!(ids(r#"{"do_lower_case": false}"#, "Café CAFE"), [8, 1]);
        assert_eq!(ids(r#"{"do_lower_case": false, "strip_accents": true}"#, "café"), [6]);
    }

    #[test]
    fn chinese_characters_are_words_of_their_own() {
        assert_eq!(ids("{}", "un房间"), [9, 4, 5]);
        assert_eq!(ids(r#"{"tokenize_chinese_chars": false}"#, "un房"), [9, 11]);
    }

    #[test]
    fn control_characters_vanish_and_special_tokens_stay_whole() {
        assert_eq!(ids("{}", "u\u{0}n\u{200b}\u{fffd}able\u{a0}间"), [9, 10, 5]);
        assert_eq!(ids("{}", "un[SEP]able"), [9, 3, 1]);
    }

    #[test]
    fn a_vocabulary_without_a_special_token_is_refused() {
        let refused = pipeline(Path::new("here"), b"[PAD]\n[UNK]\n[CLS]\n", &TokenizerConfig::default());
        let message = refused.expect_err("there is no [SEP]").to_string();
        assert_eq!(message, "the vocabulary in `here` has no sep_token: looked for `[SEP]`");
    }
}
