use std::fmt;
use std::path::Path;

use rayon::prelude::*;
use serde_json::{Map, Value};
use tokenizers::utils::truncation::truncate_encodings;
use tokenizers::{PostProcessor, TruncationParams};

use crate::config::{SpecialToken, TokenizerConfig};
use crate::file::read_if_present;
use crate::{Encoding, Error, wordpiece};

/// Files beside `tokenizer.json` that other tools read, and that are handed on as they were.
const COMPANIONS: [&str; 2] = ["vocab.txt", "special_tokens_map.json"];

/// Text to [`Encoding`]s, by the pipeline of a checkpoint: WordPiece, Unigram, or any other that `tokenizer.json` has.
#[derive(Clone)]
pub struct Tokenizer {
    /// Truncates and pads nothing: the length is decided in `encode`.
    pub(crate) pipeline: tokenizers::Tokenizer,
    pub(crate) max_length: usize,
    pub(crate) pad_token_id: u32,
    /// `tokenizer_config.json` as it was read.
    pub(crate) config: Map<String, Value>,
    /// Names and contents of the files that are handed on.
    pub(crate) companions: Vec<(&'static str, Vec<u8>)>,
}

impl Tokenizer {
    /// Reads a checkpoint's tokenizer: `tokenizer.json`, or else a BERT vocabulary in `vocab.txt`.
    ///
    /// `tokenizer_config.json` may say how a bare vocabulary is used (`do_lower_case`, `tokenize_chinese_chars`, both
    /// true by default, `strip_accents`, the special tokens) and what the maximum length is (`model_max_length`,
    /// otherwise 512). Truncation and padding that are stored in `tokenizer.json` are left aside.
    ///
    /// # Errors
    /// When neither file is there, when one cannot be read or parsed, or when a special token is not in the vocabulary.
    pub fn from_folder(folder: &Path) -> Result<Self, Error> {
        let config = TokenizerConfig::read(folder)?;
        let mut pipeline = read_pipeline(folder, &config)?;
        pipeline.with_padding(None);
        pipeline.with_truncation(None).expect("only a stride can be refused");
        let mut companions = Vec::new();
        for name in COMPANIONS {
            if let Some(bytes) = read_if_present(&folder.join(name))? {
                companions.push((name, bytes));
            }
        }
        let pad_token_id = pad_token_id(folder, &pipeline, &config)?;
        let max_length = config.max_length();
        let tokenizer = Self { pipeline, max_length, pad_token_id, config: config.keys, companions };
        tokenizer.with_max_length(max_length)
    }

    /// The length to which encodings are truncated, in tokens, special ones included.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The same tokenizer with another maximum length, in tokens, special ones included.
    ///
    /// # Errors
    /// When the special tokens of a pair of texts do not fit.
    pub fn with_max_length(mut self, max_length: usize) -> Result<Self, Error> {
        let special_tokens = self.special_tokens(true);
        if max_length < special_tokens.max(1) {
            return Err(Error::MaxLength { max_length, special_tokens });
        }
        self.max_length = max_length;
        Ok(self)
    }

    /// The id that fills a batch's shorter rows.
    pub fn pad_token_id(&self) -> u32 {
        self.pad_token_id
    }

    /// One more than the largest id: how many rows a model's word embeddings must have at least.
    pub fn vocab_size(&self) -> usize {
        self.pipeline.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }

    /// Encodes a text or a pair of texts, with special tokens, truncated to the maximum length.
    ///
    /// A pair loses the tokens at the end of its longer text first, then of both: transformers' `longest_first`.
    ///
    /// # Errors
    /// When a word is out of vocabulary and the tokenizer has no unknown token.
    pub fn encode(&self, text: &str, text_pair: Option<&str>) -> Result<Encoding, Error> {
        let tokenize =
            |text: &str| self.pipeline.encode_fast(text, false).map_err(|source| cannot_encode(text, source));
        let first = tokenize(text)?;
        let second = text_pair.map(tokenize).transpose()?;
        let special_tokens = self.special_tokens(second.is_some());
        let full_length = first.len() + second.as_ref().map_or(0, tokenizers::Encoding::len) + special_tokens;

        let truncation = TruncationParams { max_length: self.max_length - special_tokens, ..Default::default() };
        let (mut first, mut second) =
            truncate_encodings(first, second, &truncation).expect("longest first always finds a token to cut");
        // What was cut off would be combined into further encodings, as many as the product of both texts' parts.
        first.take_overflowing();
        if let Some(second) = &mut second {
            second.take_overflowing();
            second.set_type_ids(vec![1; second.len()]);
        }
        let encoding = self.pipeline.post_process(first, second, true).map_err(|source| cannot_encode(text, source))?;
        Ok(Encoding {
            input_ids: encoding.get_ids().to_vec(),
            token_type_ids: encoding.get_type_ids().to_vec(),
            full_length,
        })
    }

    /// Encodes many texts and pairs on all threads of rayon's pool; the encodings are in the order of the texts.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`], for any of the texts.
    pub fn encode_all<'a>(
        &self,
        texts: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<Vec<Encoding>, Error> {
        let texts: Vec<_> = texts.into_iter().collect();
        texts.into_par_iter().map(|(text, text_pair)| self.encode(text, text_pair)).collect()
    }

    /// How many special tokens a text, or a pair of texts, gets.
    pub(crate) fn special_tokens(&self, pair: bool) -> usize {
        self.pipeline.get_post_processor().map_or(0, |processor| processor.added_tokens(pair))
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("max_length", &self.max_length)
            .field("pad_token_id", &self.pad_token_id)
            .finish_non_exhaustive()
    }
}

pub(crate) fn cannot_encode(text: &str, source: tokenizers::Error) -> Error {
    Error::Encode { start: text.chars().take(40).collect(), source }
}

fn read_pipeline(folder: &Path, config: &TokenizerConfig) -> Result<tokenizers::Tokenizer, Error> {
    let path = folder.join("tokenizer.json");
    if let Some(json) = read_if_present(&path)? {
        return tokenizers::Tokenizer::from_bytes(json).map_err(|source| Error::Pipeline { path, source });
    }
    match read_if_present(&folder.join("vocab.txt"))? {
        Some(vocab) => wordpiece::from_vocab(folder, &vocab, config),
        None => Err(Error::Missing { folder: folder.to_owned() }),
    }
}

fn pad_token_id(folder: &Path, pipeline: &tokenizers::Tokenizer, config: &TokenizerConfig) -> Result<u32, Error> {
    let tried = match &config.special_tokens.pad_token {
        Some(token) => vec![SpecialToken::name(token)],
        None => vec!["[PAD]", "<pad>"],
    };
    tried.iter().find_map(|token| pipeline.token_to_id(token)).ok_or_else(|| Error::NoSpecialToken {
        folder: folder.to_owned(),
        role: "pad_token",
        tried: tried.iter().map(|token| format!("`{token}`")).collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
    }

    fn tiny(name: &str) -> Tokenizer {
        Tokenizer::from_folder(&fixture(name)).expect("the fixture is whole")
    }

    fn ids(tokenizer: &Tokenizer, text: &str, text_pair: Option<&str>) -> Vec<u32> {
        tokenizer.encode(text, text_pair).expect("there is an unknown token").input_ids
    }

    #[test]
    fn a_vocabulary_alone_makes_bert_encodings() {
        let tokenizer = tiny("tiny");
        assert_eq!((tokenizer.max_length(), tokenizer.pad_token_id(), tokenizer.vocab_size()), (512, 0, 14));
        let encoding = tokenizer.encode("房间 Cleaners", Some("un-able!")).expect("there is an unknown token");
        assert_eq!(encoding.input_ids, [2, 5, 6, 7, 9, 10, 3, 12, 1, 1, 11, 3]);
        assert_eq!(encoding.token_type_ids, [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
        assert_eq!(encoding.full_length, 12);
        assert!(!encoding.is_truncated());
    }

    #[test]
    fn an_empty_text_has_its_special_tokens() {
        assert_eq!(ids(&tiny("tiny"), "", None), [2, 3]);
        assert_eq!(ids(&tiny("tiny"), " \u{200b}", Some("")), [2, 3, 3]);
        assert_eq!(ids(&tiny("tiny-unigram"), "", None), [0, 2]);
    }

    #[test]
    fn unigram_comes_without_the_truncation_and_padding_of_its_file() {
        let tokenizer = tiny("tiny-unigram");
        assert_eq!((tokenizer.pad_token_id(), tokenizer.vocab_size()), (1, 10));
        let encoding = tokenizer.encode("房间 ｃｌｅａｎ 干净房", Some("间")).expect("there is an unknown token");
        assert_eq!(encoding.input_ids, [0, 5, 8, 4, 9, 6, 2, 2, 4, 7, 2]);
        assert_eq!(encoding.token_type_ids, [0; 11]);
    }

    /// 3 special tokens leave 6 places; "longest first" is that of tokenizers and of transformers' fast classes.
    #[test]
    fn pairs_are_truncated_longest_first() {
        let tokenizer = tiny("tiny").with_max_length(9).expect("9 is enough");
        let cases = [
            ((2, 9), (2, 4)),
            ((9, 2), (4, 2)),
            ((9, 9), (3, 3)),
            ((3, 9), (3, 3)),
            ((0, 9), (0, 6)),
            ((9, 0), (6, 0)),
            ((4, 2), (4, 2)),
        ];
        for ((first, second), (kept_first, kept_second)) in cases {
            let (text, text_pair) = ("房".repeat(first), "间".repeat(second));
            let encoding = tokenizer.encode(&text, Some(&text_pair)).expect("there is an unknown token");
            let kept = |id| encoding.input_ids.iter().filter(|&&input_id| input_id == id).count();
            assert_eq!((kept(5), kept(6)), (kept_first, kept_second), "of {first} and {second}");
            assert_eq!(encoding.input_ids.len(), kept_first + kept_second + 3);
            assert_eq!(encoding.full_length, first + second + 3);
            assert_eq!(encoding.is_truncated(), first + second > 6);
        }
        let odd = tokenizer.with_max_length(8).expect("8 is enough");
        assert_eq!(ids(&odd, "房房房房", Some("间间间间")), [2, 5, 5, 3, 6, 6, 6, 3]);
        assert_eq!(ids(&odd, &"房".repeat(90), Some(&"间".repeat(80))), [2, 5, 5, 5, 3, 6, 6, 3]);
    }

    /// The pipeline's own truncation stops reading a text at the maximum length, so it cannot know which of two texts
    /// beyond that is the longer one: such pairs are left out.
    #[test]
    fn truncation_is_that_of_the_pipeline_itself() {
        let words = ["房间", "clean", "cafe unable", "! ! !", "房", ""];
        for name in ["tiny", "tiny-unigram"] {
            for max_length in 4..14 {
                let tokenizer = tiny(name).with_max_length(max_length).expect("4 is enough");
                let mut reference = tokenizer.pipeline.clone();
                let truncation = TruncationParams { max_length, ..Default::default() };
                reference.with_truncation(Some(truncation)).expect("there is no stride");
                for (index, first) in words.iter().enumerate() {
                    let text = first.repeat(index + 1);
                    let single = reference.encode(text.as_str(), true).expect("there is an unknown token");
                    assert_eq!(ids(&tokenizer, &text, None), single.get_ids());
                    for second in words {
                        let text_pair = second.repeat(3);
                        let both = [text.as_str(), &text_pair];
                        if both.iter().all(|text| ids(&tokenizer, text, None).len() == max_length) {
                            continue;
                        }
                        let pair = (text.as_str(), text_pair.as_str());
                        let expected = reference.encode(pair, true).expect("there is an unknown token");
                        let encoding = tokenizer.encode(&text, Some(&text_pair)).expect("there is an unknown token");
                        assert_eq!(encoding.input_ids, expected.get_ids());
                        assert_eq!(encoding.token_type_ids, expected.get_type_ids());
                    }
                }
            }
        }
    }

    #[test]
    fn special_tokens_must_fit() {
        let tokenizer = tiny("tiny").with_max_length(3).expect("3 special tokens fit");
        assert_eq!(ids(&tokenizer, "房间", Some("间")), [2, 3, 3]);
        assert_eq!(ids(&tokenizer, "房间", None), [2, 5, 3]);
        let message = tokenizer.with_max_length(2).expect_err("a pair has 3").to_string();
        assert_eq!(message, "max_length is 2, but a pair of texts has 3 special tokens alone");
    }

    #[test]
    fn many_texts_keep_their_order() {
        let tokenizer = tiny("tiny");
        let texts: Vec<String> = (0..211).map(|row| "房".repeat(row % 37)).collect();
        let encodings = tokenizer.encode_all(texts.iter().map(|text| (text.as_str(), None))).expect("all are known");
        assert_eq!(encodings.len(), 211);
        for (row, encoding) in encodings.iter().enumerate() {
            assert_eq!(encoding.full_length, row % 37 + 2);
        }
    }

    #[test]
    fn errors_name_the_folder_and_what_was_looked_for() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let here = folder.path().display().to_string();
        let refused = || Tokenizer::from_folder(folder.path()).expect_err("there is no tokenizer");
        let missing = format!("no tokenizer in `{here}`: looked for `tokenizer.json`, then `vocab.txt`");
        assert_eq!(refused().to_string(), missing);
        assert!(matches!(Tokenizer::from_folder(&folder.path().join("no")), Err(Error::Missing { .. })));

        fs::write(folder.path().join("tokenizer.json"), r#"{"version": "1.0"}"#).expect("it is writable");
        assert_eq!(refused().to_string(), format!("`{here}/tokenizer.json` is not a tokenizer"));
        fs::copy(fixture("tiny-unigram").join("tokenizer.json"), folder.path().join("tokenizer.json"))
            .expect("it is readable");
        let config = |json: &str| fs::write(folder.path().join("tokenizer_config.json"), json).expect("it is writable");
        config(r#"{"pad_token": "[PAD]"}"#);
        assert_eq!(refused().to_string(), format!("the vocabulary in `{here}` has no pad_token: looked for `[PAD]`"));
        config("{\n\"do_lower_case\": \"no\"}");
        let error = refused();
        let source = std::error::Error::source(&error).expect("the source is kept").to_string();
        assert_eq!(source, "invalid type: string \"no\", expected a boolean at line 2 column 21");
    }
}
