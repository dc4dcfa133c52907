use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use kiln_files::guarded;
use rayon::prelude::*;
use serde_json::{Map, Value};
use tokenizers::{AddedToken, PostProcessor, TruncationDirection};

use crate::class::Class;
use crate::config::{SpecialToken, SpecialTokens, TokenizerConfig};
use crate::cuts::Cuts;
use crate::declared::{self, LARGEST_ID};
use crate::file::read_if_present;
use crate::reading::Extent;
use crate::{Encoding, Error, added, byte_level, pipeline, wordpiece};

/// Files beside `tokenizer.json` that other tools read; they are saved as they were.
const COMPANIONS: [&str; 2] = ["vocab.txt", "special_tokens_map.json"];

/// Text to [`Encoding`]s, by the pipeline of a checkpoint: WordPiece, Unigram, or any other that `tokenizer.json` has.
///
/// # Long texts
/// A text of more than 32 KiB is tokenized in pieces, which are cut only where that changes no token: at white space, and
/// with BERT's pipeline also at Chinese characters and at punctuation. [`Tokenizer::encode`] stops once it has the maximum
/// length, so its cost does not grow with the text. Windows need all tokens, at about 20 bytes of memory for each byte of
/// text. [`Tokenizer::encode_counted`] counts in pieces as short as they can be, with a Unigram vocabulary also between two
/// neighbouring characters that no piece of the vocabulary contains; each different piece is tokenized once, and memory
/// does not grow with the text. A stretch without any such place is tokenized at once, at about 100 bytes of memory for
/// each of its bytes; for a count, no more than 256 KiB of it. `encode` still stops early for a Unigram vocabulary and
/// within a long word of BERT's.
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
    /// The special tokens that its files state.
    pub(crate) special_tokens: SpecialTokens,
    /// Names and contents of the files that are saved unchanged.
    pub(crate) companions: Vec<(&'static str, Vec<u8>)>,
}

impl Tokenizer {
    /// Reads a checkpoint's tokenizer: `tokenizer.json`, or else a BERT vocabulary in `vocab.txt`, or else RoBERTa's
    /// byte-level vocabulary in `vocab.json` and `merges.txt`.
    ///
    /// As in transformers' `AutoTokenizer`, the class decides what the files mean. It is the `tokenizer_class` of
    /// `tokenizer_config.json` or of `config.json`, or the one of the model's type. `BertTokenizer` takes the vocabulary,
    /// and its pipeline from `tokenizer_config.json` alone: `do_lower_case` and `tokenize_chinese_chars`, both true by
    /// default, `strip_accents`, and the special tokens. `RobertaTokenizer` likewise takes `add_prefix_space` and
    /// `trim_offsets`; `XLMRobertaTokenizer`, `CamembertTokenizer` and `AlbertTokenizer` build pipelines of their own too.
    /// Any other class, or none, runs `tokenizer.json` as it is.
    ///
    /// The maximum length is `model_max_length` of `tokenizer_config.json`, otherwise 512. Truncation and padding that are
    /// stored in `tokenizer.json` are ignored.
    ///
    /// # Errors
    /// When neither file is there, when one cannot be read or parsed, or when a special token is not in the vocabulary.
    pub fn from_folder(folder: &Path) -> Result<Self, Error> {
        let config = TokenizerConfig::read(folder)?;
        let (source, mut pipeline) = read_pipeline(folder, &config)?;
        let mut companions = Vec::new();
        for name in COMPANIONS {
            if let Some(bytes) = read_if_present(&folder.join(name))? {
                companions.push((name, bytes));
            }
        }
        let pad_token_id = pad_token_id(folder, &pipeline, &config)?;
        // Saving names it in the configuration, which makes it special: it has to be so before as after.
        let pad_token = pipeline.id_to_token(pad_token_id).unwrap_or_default();
        if !pipeline.get_added_vocabulary().is_special_token(&pad_token) {
            guarded(|| pipeline.add_special_tokens([AddedToken::from(pad_token, true)]))
                .map_err(|reason| Error::Broken { path: source.clone(), reason })?
                .map_err(|cause| Error::Pipeline { path: source.clone(), source: cause })?;
        }
        let max_length = config.max_length();
        let mut tokenizer = Self::new(pipeline, source, config)?;
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
        TokenizerConfig { keys: config, special_tokens, .. }: TokenizerConfig,
    ) -> Result<Self, Error> {
        let broken = |reason| Error::Broken { path: source.clone(), reason };
        pipeline.with_padding(None);
        pipeline.with_truncation(None).expect("only a stride can be refused");
        let vocab = pipeline.get_vocab(true);
        let mut tokens = HashMap::with_capacity(vocab.len());
        for (token, id) in &vocab {
            if let Some(other) = tokens.insert(*id, token) {
                let (first, second) = if token < other { (token, other) } else { (other, token) };
                return Err(broken(format!("the tokens `{first}` and `{second}` have the same id {id}")));
            }
        }
        let largest = vocab.into_iter().max_by_key(|(_, id)| *id);
        if let Some((token, id)) = largest.as_ref().filter(|(_, id)| *id > LARGEST_ID) {
            return Err(broken(format!("the token `{token}` has the id {id}, expected {LARGEST_ID} at most")));
        }
        let cuts = guarded(|| Cuts::of(&pipeline)).map_err(broken)?;
        let vocab_size = largest.map_or(0, |(_, id)| id as usize + 1);
        Ok(Self {
            pipeline,
            max_length: 0,
            pad_token_id: 0,
            vocab_size,
            type_vocab_size: None,
            source,
            cuts,
            config,
            special_tokens,
            companions: Vec::new(),
        })
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

    /// The same, with the [`Encoding::full_length`] of texts of any length: exact, or where
    /// [`Encoding::full_length_is_exact`] is false, without the rest of each stretch of more than 256 KiB that cannot be cut.
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
            first.tokens = self.count(text)?.tokens;
            second.tokens = self.count(text_pair.unwrap_or_default())?.tokens;
        }
        let lengths = (first.tokens, second.as_ref().map_or(0, |second| second.tokens));
        let kept = longest_first(lengths, room);
        let cut = |mut encoding: tokenizers::Encoding, kept| {
            encoding.truncate(kept, 0, TruncationDirection::Right);
            // What was cut off would be combined into further encodings, as many as the product of both texts' parts.
            encoding.take_overflowing();
            encoding
        };
        let full_length_is_exact = first.whole && second.as_ref().is_none_or(|second| second.whole);
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
            full_length_is_exact,
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

    /// The same, with the full length of each as [`Tokenizer::encode_counted`] counts it.
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

/// [`Tokenizer::guard`] knows the path.
pub(crate) fn cannot_encode(text: &str, source: tokenizers::Error) -> Error {
    Error::Encode { path: PathBuf::new(), start: text.chars().take(40).collect(), source }
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
    let invalid = |path: &Path| {
        let path = path.to_owned();
        |source| Error::Pipeline { path, source }
    };
    let path = folder.join("tokenizer.json");
    if let Some(json) = read_if_present(&path)? {
        declared::check(&path, &json)?;
        let class = Class::of(folder, config)?;
        return built(path, |path| {
            let mut pipeline = tokenizers::Tokenizer::from_bytes(json).map_err(invalid(path))?;
            pipeline::apply(&mut pipeline, class, path, config)?;
            Ok(pipeline)
        });
    }
    let path = folder.join("vocab.txt");
    if let Some(vocab) = read_if_present(&path)? {
        return built(path, |path| {
            let mut pipeline = tokenizers::Tokenizer::new(wordpiece::from_vocab(folder, &vocab, config)?);
            added::add(&mut pipeline, Class::Bert, folder, config)?;
            pipeline::apply(&mut pipeline, Class::Bert, path, config)?;
            Ok(pipeline)
        });
    }
    let path = folder.join("vocab.json");
    if let Some(vocab) = read_if_present(&path)? {
        if Class::of(folder, config)? != Class::Roberta {
            return Err(Error::NotRoberta { path });
        }
        let merges = folder.join("merges.txt");
        let merges = read_if_present(&merges)?.ok_or(Error::NoMerges { path: merges })?;
        return built(path, |path| {
            let mut pipeline = tokenizers::Tokenizer::new(byte_level::from_files(folder, &vocab, &merges)?);
            added::add(&mut pipeline, Class::Roberta, folder, config)?;
            pipeline::apply(&mut pipeline, Class::Roberta, path, config)?;
            Ok(pipeline)
        });
    }
    let sentencepiece = ["sentencepiece.bpe.model", "spiece.model", "tokenizer.model"].map(|name| folder.join(name));
    Err(match sentencepiece.into_iter().find(|path| path.is_file()) {
        Some(path) => Error::SentencePiece { path },
        None => Error::Missing { folder: folder.to_owned() },
    })
}

/// A pipeline of that file; its panics become errors.
fn built(
    path: PathBuf,
    build: impl FnOnce(&Path) -> Result<tokenizers::Tokenizer, Error>,
) -> Result<(PathBuf, tokenizers::Tokenizer), Error> {
    match guarded(|| build(&path)) {
        Ok(pipeline) => Ok((path, pipeline?)),
        Err(reason) => Err(Error::Broken { path, reason }),
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
mod tests;
