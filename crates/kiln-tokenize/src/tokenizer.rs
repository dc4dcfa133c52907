use std::fmt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::{Map, Value};
use tokenizers::{PostProcessor, TruncationDirection};

use crate::boundary::guarded;
use crate::class::{self, Class};
use crate::config::{SpecialToken, TokenizerConfig};
use crate::cuts::Cuts;
use crate::declared::{self, LARGEST_ID};
use crate::file::read_if_present;
use crate::reading::Extent;
use crate::{Encoding, Error, wordpiece};

/// Files beside `tokenizer.json` that other tools read; they are saved as they were.
const COMPANIONS: [&str; 2] = ["vocab.txt", "special_tokens_map.json"];

/// Text to [`Encoding`]s, by the pipeline of a checkpoint: WordPiece, Unigram, or any other that `tokenizer.json` has.
///
/// # Long texts
/// A text of more than 32 KiB is tokenized in pieces, which are cut only where that changes no token: at white space, and
/// with BERT's pipeline also at Chinese characters and at punctuation. [`Tokenizer::encode`] stops once it has the maximum
/// length, so its cost does not grow with the text. What needs all tokens ([`Tokenizer::encode_counted`], windows) takes
/// about 20 bytes of memory for each byte of text in windows, and 1 where tokens are only counted. A stretch without any
/// such place (a SentencePiece text without white space, a pipeline other than these) is tokenized at once, at about 100
/// bytes of memory for each of its bytes; `encode` still stops early for a Unigram vocabulary and within a long word of
/// BERT's.
#[derive(Clone)]
pub struct Tokenizer {
    /// Truncates and pads nothing: the length is decided in `encode`.
    pub(crate) pipeline: tokenizers::Tokenizer,
    pub(crate) max_length: usize,
    pub(crate) pad_token_id: u32,
    /// One more than the largest id.
    pub(crate) vocab_size: usize,
    /// Of the model, where one is known: what token types it has embeddings for.
    pub(crate) type_vocab_size: Option<usize>,
    /// The file that errors name.
    pub(crate) source: PathBuf,
    pub(crate) cuts: Cuts,
    /// `tokenizer_config.json` as it was read.
    pub(crate) config: Map<String, Value>,
    /// Names and contents of the files that are saved unchanged.
    pub(crate) companions: Vec<(&'static str, Vec<u8>)>,
}

impl Tokenizer {
    /// Reads a checkpoint's tokenizer: `tokenizer.json`, or else a BERT vocabulary in `vocab.txt`.
    ///
    /// As in transformers' `AutoTokenizer`, the class decides what the files mean. It is the `tokenizer_class` of
    /// `tokenizer_config.json` or of `config.json`, or the one of the model's type. `BertTokenizer` takes the vocabulary,
    /// and its pipeline from `tokenizer_config.json` alone: `do_lower_case` and `tokenize_chinese_chars`, both true by
    /// default, `strip_accents`, and the special tokens. `XLMRobertaTokenizer` likewise builds its own pipeline. Any other
    /// class, or none, runs `tokenizer.json` as it is.
    ///
    /// The maximum length is `model_max_length` of `tokenizer_config.json`, otherwise 512. Truncation and padding that are
    /// stored in `tokenizer.json` are ignored.
    ///
    /// # Errors
    /// When neither file is there, when one cannot be read or parsed, or when a special token is not in the vocabulary.
    pub fn from_folder(folder: &Path) -> Result<Self, Error> {
        let config = TokenizerConfig::read(folder)?;
        let (source, pipeline) = read_pipeline(folder, &config)?;
        let mut companions = Vec::new();
        for name in COMPANIONS {
            if let Some(bytes) = read_if_present(&folder.join(name))? {
                companions.push((name, bytes));
            }
        }
        let pad_token_id = pad_token_id(folder, &pipeline, &config)?;
        let max_length = config.max_length();
        let mut tokenizer = Self::new(pipeline, source, config.keys)?;
        (tokenizer.pad_token_id, tokenizer.companions) = (pad_token_id, companions);
        tokenizer.with_max_length(max_length).map_err(|error| match error {
            Error::MaxLength { .. } => Error::Broken {
                path: folder.join("tokenizer_config.json"),
                reason: format!("model_max_length: {error}"),
            },
            error => error,
        })
    }

    /// A pipeline as a tokenizer, still without its padding token, files and maximum length.
    pub(crate) fn new(
        mut pipeline: tokenizers::Tokenizer,
        source: PathBuf,
        config: Map<String, Value>,
    ) -> Result<Self, Error> {
        let broken = |reason| Error::Broken { path: source.clone(), reason };
        pipeline.with_padding(None);
        pipeline.with_truncation(None).expect("only a stride can be refused");
        let largest = pipeline.get_vocab(true).into_iter().max_by_key(|(_, id)| *id);
        if let Some((token, id)) = largest.as_ref().filter(|(_, id)| *id > LARGEST_ID) {
            return Err(broken(format!("the token `{token}` has the id {id}, expected {LARGEST_ID} at most")));
        }
        let cuts = guarded(|| Cuts::of(&pipeline)).map_err(broken)?;
        let vocab_size = largest.map_or(0, |(_, id)| id as usize + 1);
        let (max_length, pad_token_id, type_vocab_size) = (0, 0, None);
        let companions = Vec::new();
        Ok(Self { pipeline, max_length, pad_token_id, vocab_size, type_vocab_size, source, cuts, config, companions })
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
        let special_tokens = self.special_tokens(true).max(self.special_tokens(false));
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
        self.vocab_size
    }

    /// Encodes a text or a pair of texts, with special tokens, truncated to the maximum length.
    ///
    /// A pair loses the tokens at the end of its longer text first, then of both: transformers' `longest_first`. Of a text
    /// longer than 32 KiB only as much is read as needed, and [`Encoding::full_length`] is then a lower bound.
    ///
    /// # Errors
    /// When a word is out of vocabulary and the tokenizer has no unknown token, or when the model has no embedding for the
    /// second text's token type.
    pub fn encode(&self, text: &str, text_pair: Option<&str>) -> Result<Encoding, Error> {
        let room = self.max_length - self.special_tokens(text_pair.is_some());
        self.encode_to(text, text_pair, Extent::Tokens(room + 1))
    }

    /// The same, with the exact [`Encoding::full_length`] of texts of any length. All of a text is read.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_counted(&self, text: &str, text_pair: Option<&str>) -> Result<Encoding, Error> {
        let room = self.max_length - self.special_tokens(text_pair.is_some());
        self.encode_to(text, text_pair, Extent::Counted(room + 1))
    }

    fn encode_to(&self, text: &str, text_pair: Option<&str>, extent: Extent) -> Result<Encoding, Error> {
        let mut first = self.read(text, extent)?;
        let mut second = text_pair.map(|text| self.read(text, extent)).transpose()?;
        let special_tokens = self.special_tokens(second.is_some());
        let room = self.max_length - special_tokens;
        if let Some(second) = second.as_mut().filter(|second| !first.whole && !second.whole && room % 2 == 1) {
            // Both lose tokens, and the longer one keeps one more.
            first.tokens = self.read(text, Extent::Counted(0))?.tokens;
            second.tokens = self.read(text_pair.unwrap_or_default(), Extent::Counted(0))?.tokens;
        }
        let lengths = (first.tokens, second.as_ref().map_or(0, |second| second.tokens));
        let kept = longest_first(lengths, room);
        let cut = |mut encoding: tokenizers::Encoding, kept| {
            encoding.truncate(kept, 0, TruncationDirection::Right);
            // What was cut off would be combined into further encodings, as many as the product of both texts' parts.
            encoding.take_overflowing();
            encoding
        };
        let first = cut(first.encoding, kept.0);
        let second = second.map(|second| {
            let mut second = cut(second.encoding, kept.1);
            second.set_type_ids(vec![1; second.len()]);
            second
        });
        let encoding = self
            .guard(|| self.pipeline.post_process(first, second, true).map_err(|source| cannot_encode(text, source)))?;
        self.check_types(encoding.get_type_ids())?;
        Ok(Encoding {
            input_ids: encoding.get_ids().to_vec(),
            token_type_ids: encoding.get_type_ids().to_vec(),
            full_length: lengths.0 + lengths.1 + special_tokens,
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

    /// The same, with the exact full length of each.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`], for any of the texts.
    pub fn encode_all_counted<'a>(
        &self,
        texts: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<Vec<Encoding>, Error> {
        let texts: Vec<_> = texts.into_iter().collect();
        texts.into_par_iter().map(|(text, text_pair)| self.encode_counted(text, text_pair)).collect()
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

/// How many tokens of each text fit: the longer loses tokens first, then both.
fn longest_first((first, second): (usize, usize), room: usize) -> (usize, usize) {
    let shorter = first.min(second);
    let (kept_shorter, kept_longer) = match () {
        () if first + second <= room => return (first, second),
        () if shorter > room / 2 => (room / 2, room - room / 2),
        () => (shorter, room - shorter),
    };
    if first > second { (kept_longer, kept_shorter) } else { (kept_shorter, kept_longer) }
}

/// The file that describes the pipeline, and the pipeline.
fn read_pipeline(folder: &Path, config: &TokenizerConfig) -> Result<(PathBuf, tokenizers::Tokenizer), Error> {
    let path = folder.join("tokenizer.json");
    let broken = |path: &Path| {
        let path = path.to_owned();
        |reason| Err(Error::Broken { path, reason })
    };
    if let Some(json) = read_if_present(&path)? {
        declared::check(&path, &json)?;
        let class = Class::of(folder, config)?;
        let pipeline = guarded(|| {
            let mut pipeline = tokenizers::Tokenizer::from_bytes(json)
                .map_err(|source| Error::Pipeline { path: path.clone(), source })?;
            class::apply(&mut pipeline, class, folder, config)?;
            Ok(pipeline)
        });
        return Ok((path.clone(), pipeline.unwrap_or_else(broken(&path))?));
    }
    let path = folder.join("vocab.txt");
    match read_if_present(&path)? {
        Some(vocab) => {
            let pipeline = guarded(|| wordpiece::from_vocab(folder, &vocab, config)).unwrap_or_else(broken(&path))?;
            Ok((path, pipeline))
        }
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

    use tokenizers::TruncationParams;

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

    /// Writes the Unigram fixture with one key replaced, and loads it.
    fn damaged(key: &str, value: serde_json::Value) -> (String, Result<Tokenizer, Error>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("tokenizer.json");
        let json = fs::read(fixture("tiny-unigram").join("tokenizer.json")).expect("the fixture is there");
        let mut json: serde_json::Value = serde_json::from_slice(&json).expect("the fixture is JSON");
        json[key] = value;
        fs::write(&path, json.to_string()).expect("it is writable");
        (path.display().to_string(), Tokenizer::from_folder(folder.path()))
    }

    /// Every one of these ends in a panic inside the library that runs the pipeline, or asks for gigabytes.
    #[test]
    fn a_file_that_the_library_cannot_take_is_an_error_that_names_it() {
        let charsmap = "8P///wAAAAAAAAAAAAAAAAAAAAA=";
        let special = serde_json::json!({"x": {"id": "x", "ids": [3], "tokens": ["x"]}});
        let piece = |name: &str| serde_json::json!({"Sequence": {"id": name, "type_id": 0}});
        let cases = [
            ("normalizer", serde_json::json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})),
            ("normalizer", serde_json::json!({"type": "Precompiled", "precompiled_charsmap": charsmap})),
            ("normalizer", serde_json::json!({"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAAAA"})),
            ("pre_tokenizer", serde_json::json!({"type": "FixedLength", "length": 0})),
            (
                "post_processor",
                serde_json::json!({
                    "type": "TemplateProcessing", "single": [piece("B")], "pair": [piece("A"), piece("B")],
                    "special_tokens": special
                }),
            ),
            (
                "model",
                serde_json::json!({
                    "type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "<pad>": 3}, "merges": [["a", "b"]],
                    "continuing_subword_prefix": "######"
                }),
            ),
            (
                "model",
                serde_json::json!({"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": {"a": 0, "<pad>": 4_000_000_000_u32}}),
            ),
        ];
        for (key, value) in cases {
            let (path, loaded) = damaged(key, value.clone());
            let failed =
                loaded.and_then(|tokenizer| tokenizer.encode("房间 clean 干净", None)).expect_err("it cannot work");
            assert!(failed.to_string().contains(&path), "{value}: {failed}");
        }
    }

    #[test]
    fn a_file_that_ends_too_early_is_an_error_that_names_it() {
        let json = fs::read_to_string(fixture("tiny-unigram").join("tokenizer.json")).expect("the fixture is there");
        for end in (0..json.len()).filter(|end| json.is_char_boundary(*end)).step_by(23) {
            let folder = tempfile::tempdir().expect("a temporary folder");
            fs::write(folder.path().join("tokenizer.json"), &json[..end]).expect("it is writable");
            let failed = Tokenizer::from_folder(folder.path()).expect_err("it is not whole").to_string();
            assert!(failed.contains("tokenizer.json"), "{end}: {failed}");
        }
    }

    #[test]
    fn which_of_a_folder_s_files_counts() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let copy = |from: &str, name: &str| {
            fs::copy(fixture(from).join(name), folder.path().join(name)).expect("the fixture is readable")
        };
        copy("tiny", "vocab.txt");
        let vocab_size = || Tokenizer::from_folder(folder.path()).expect("the folder is whole").vocab_size();
        assert_eq!(vocab_size(), 14, "vocab.txt alone");
        copy("tiny-unigram", "tokenizer.json");
        assert_eq!(vocab_size(), 10, "tokenizer.json wins");
        fs::remove_file(folder.path().join("vocab.txt")).expect("it is there");
        assert_eq!(vocab_size(), 10, "tokenizer.json alone");
        fs::remove_file(folder.path().join("tokenizer.json")).expect("it is there");
        fs::write(folder.path().join("vocab.txt"), [0xff, 0xfe, b'\n']).expect("it is writable");
        let failed = Tokenizer::from_folder(folder.path()).expect_err("it is not UTF-8").to_string();
        assert!(failed.contains("vocab.txt"), "{failed}");
        fs::write(folder.path().join("tokenizer_config.json"), r#"{"model_max_length": 2}"#).expect("it is writable");
        copy("tiny", "vocab.txt");
        let failed = Tokenizer::from_folder(folder.path()).expect_err("a pair has 3 special tokens").to_string();
        assert!(failed.contains("tokenizer_config.json") && failed.contains("model_max_length"), "{failed}");
    }

    #[test]
    fn long_pairs_are_truncated_as_if_all_of_them_were_read() {
        let tokenizer = tiny("tiny");
        let sizes = [0, 3, 40, 20_000, 20_001, 40_000];
        for max_length in [8, 9, 33, 64] {
            let tokenizer = tokenizer.clone().with_max_length(max_length).expect("8 is enough");
            for (first, second) in sizes.into_iter().flat_map(|first| sizes.map(|second| (first, second))) {
                let (text, text_pair) = ("房".repeat(first), "间".repeat(second));
                let encoding = tokenizer.encode(&text, Some(&text_pair)).expect("there is an unknown token");
                let counted = tokenizer.encode_counted(&text, Some(&text_pair)).expect("there is an unknown token");
                let (kept_first, kept_second) = longest_first((first, second), max_length - 3);
                let ids = [vec![2], vec![5; kept_first], vec![3], vec![6; kept_second], vec![3]].concat();
                assert_eq!((&encoding.input_ids, &counted.input_ids), (&ids, &ids), "{first} {second}");
                assert_eq!(counted.full_length, first + second + 3);
                assert!(encoding.full_length <= counted.full_length);
                assert_eq!(encoding.is_truncated(), counted.is_truncated());
            }
        }
    }
}
