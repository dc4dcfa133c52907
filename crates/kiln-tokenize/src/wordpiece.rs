use std::path::Path;

use tokenizers::models::wordpiece::WordPiece;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, decoders};

use crate::Error;
use crate::class::bert_normalizer;
use crate::config::{TokenizerConfig, name};

/// BERT's pipeline from its vocabulary, one token a line: clean, space Chinese characters, lower-case, strip accents;
/// split at spaces and punctuation; longest match first; `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`.
///
/// The same as `BasicTokenizer` and `WordpieceTokenizer` of google-research/bert, `tokenization.py`.
pub(crate) fn from_vocab(
    folder: &Path,
    vocab: &[u8],
    config: &TokenizerConfig,
) -> Result<tokenizers::Tokenizer, Error> {
    let invalid = |source| Error::Pipeline { path: folder.join("vocab.txt"), source };
    let vocab = WordPiece::read_bytes(vocab).map_err(invalid)?;

    let tokens = &config.special_tokens;
    let unk = name(&tokens.unk_token, "[UNK]");
    let sep = name(&tokens.sep_token, "[SEP]");
    let pad = name(&tokens.pad_token, "[PAD]");
    let cls = name(&tokens.cls_token, "[CLS]");
    let mask = name(&tokens.mask_token, "[MASK]");
    let id = |role, token: &str| match vocab.get(token) {
        Some(&id) => Ok((token.to_owned(), id)),
        None => Err(Error::NoSpecialToken { folder: folder.to_owned(), role, tried: format!("`{token}`") }),
    };
    id("unk_token", unk)?;
    let processing = BertProcessing::new(id("sep_token", sep)?, id("cls_token", cls)?);
    let special = [unk, sep, pad, cls, mask].into_iter().filter(|token| vocab.contains_key(*token));
    let special: Vec<AddedToken> = special.map(|token| AddedToken::from(token, true)).collect();
    let wordpiece = WordPiece::builder().vocab(vocab).unk_token(unk.to_owned()).build().map_err(invalid)?;
    let mut tokenizer = tokenizers::Tokenizer::new(wordpiece);
    tokenizer
        .with_normalizer(Some(bert_normalizer(config)))
        .map_err(invalid)?
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_post_processor(Some(processing))
        .with_decoder(Some(decoders::wordpiece::WordPiece::default()));
    tokenizer.add_special_tokens(special).map_err(invalid)?;
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCAB: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n房\n间\ncafe\ncafé\nCafé\nun\n##able\n##房\n!\n";

    fn ids(config: &str, text: &str) -> Vec<u32> {
        let config = TokenizerConfig {
            settings: serde_json::from_str(config).expect("the settings are well-formed"),
            ..TokenizerConfig::default()
        };
        let tokenizer = from_vocab(Path::new("vocab"), VOCAB.as_bytes(), &config).expect("the vocabulary is whole");
        tokenizer.encode_fast(text, false).expect("there is an unknown token").get_ids().to_vec()
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
        let refused = from_vocab(Path::new("here"), b"[PAD]\n[UNK]\n[CLS]\n", &TokenizerConfig::default());
        let message = refused.expect_err("there is no [SEP]").to_string();
        assert_eq!(message, "the vocabulary in `here` has no sep_token: looked for `[SEP]`");
    }
}
