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

/// Files next to `tokenizer.json` that other tools read. They are saved unchanged.
const COMPANIONS: [&str; 2] = ["vocab.txt", "special_tokens_map.json"];

/// Turns texts into [`Encoding`]s with a checkpoint's pipeline: WordPiece, Unigram, or any other in `tokenizer.json`.
///
/// # Long texts
/// A text of more than 32 KiB is tokenized in pieces. It is cut only where a cut changes no token: at white space, and with
/// BERT's pipeline also at Chinese characters and punctuation. A stretch that cannot be cut is tokenized as one piece, which
/// takes about 100 bytes of memory per byte.
///
/// - [`Tokenizer::encode`] stops at the maximum length, so its cost does not grow with the text. In a stretch that cannot be
///   cut, it still stops early with a Unigram vocabulary and inside a long word of BERT's pipeline.
/// - Windows need all tokens. They take about 20 bytes of memory per byte of text.
/// - [`Tokenizer::encode_counted`] counts in the shortest possible pieces. With a Unigram vocabulary it also cuts between
///   two characters that are neighbours in no piece of the vocabulary. The counts of short pieces are cached, and memory
///   does not grow with the text. It counts at most 256 KiB of a stretch that cannot be cut.
#[derive(Clone)]
pub struct Tokenizer {
    /// Without truncation and padding: `encode` truncates.
    pub(crate) pipeline: tokenizers::Tokenizer,
    pub(crate) max_length: usize,
    pub(crate) pad_token_id: u32,
    /// The largest id plus one.
    pub(crate) vocab_size: usize,
    /// Whether the model has token types as an input. Otherwise all are 0.
    pub(crate) has_token_types: bool,
    /// The end at which texts that are too long are truncated.
    pub(crate) truncation: TruncationDirection,
    /// The number of token types of the model, if a model is known.
    pub(crate) type_vocab_size: Option<usize>,
    /// The file that errors name.
    pub(crate) source: PathBuf,
    pub(crate) cuts: Cuts,
    /// `tokenizer_config.json` as it was read.
    pub(crate) config: Map<String, Value>,
    /// The special tokens that the files declare.
    pub(crate) special_tokens: SpecialTokens,
    /// The names and contents of the files that are saved unchanged.
    pub(crate) companions: Vec<(&'static str, Vec<u8>)>,
}

impl Tokenizer {
    /// Reads a checkpoint's tokenizer: `tokenizer.json`, otherwise a BERT vocabulary in `vocab.txt`, otherwise a RoBERTa
    /// byte-level vocabulary in `vocab.json` and `merges.txt`.
    ///
    /// As in transformers' `AutoTokenizer`, the tokenizer class decides how the files are interpreted. The class is the
    /// `tokenizer_class` of `tokenizer_config.json` or of `config.json`, or the default of the model type.
    ///
    /// - `BertTokenizer` uses only the vocabulary of the file. It builds its pipeline from `tokenizer_config.json`:
    ///   `do_lower_case` and `tokenize_chinese_chars`, both true by default, `strip_accents`, and the special tokens.
    /// - `RobertaTokenizer` builds its pipeline from `add_prefix_space`, `trim_offsets` and the special tokens.
    /// - `XLMRobertaTokenizer`, `CamembertTokenizer` and `AlbertTokenizer` also build their own pipelines.
    /// - With any other class, or none, `tokenizer.json` is used unchanged.
    ///
    /// The maximum length is `model_max_length` of `tokenizer_config.json`, otherwise 512. Its `truncation_side` and
    /// `model_input_names` are followed too. Truncation and padding settings in `tokenizer.json` are ignored.
    ///
    /// # Errors
    /// When the folder has no tokenizer, a file cannot be read or parsed, or a special token is not in the vocabulary.
    pub fn from_folder(folder: &Path) -> Result<Self, Error> {
        Self::read_folder(folder, |_| Ok(()))
    }

    /// [`Tokenizer::from_folder`] with a change of the pipeline.
    pub(crate) fn read_folder(
        folder: &Path,
        change: impl FnOnce(&mut tokenizers::Tokenizer) -> tokenizers::Result<()>,
    ) -> Result<Self, Error> {
        let config = TokenizerConfig::read(folder)?;
        let (source, mut pipeline) = read_pipeline(folder, &config)?;
        change(&mut pipeline).map_err(|cause| Error::Pipeline { path: source.clone(), source: cause })?;
        let mut companions = Vec::new();
        for name in COMPANIONS {
            if let Some(bytes) = read_if_present(&folder.join(name))? {
                companions.push((name, bytes));
            }
        }
        let pad_token_id = pad_token_id(folder, &pipeline, &config)?;
        // `save` names the padding token in the configuration, which makes it special when it is read again. It must already
        // be special now.
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

    /// Makes a tokenizer of a pipeline. The caller sets the padding token, the companion files and the maximum length.
    pub(crate) fn new(
        mut pipeline: tokenizers::Tokenizer,
        source: PathBuf,
        config: TokenizerConfig,
    ) -> Result<Self, Error> {
        let (has_token_types, truncation) = (config.has_token_types(), config.truncation());
        let TokenizerConfig { keys: config, special_tokens, .. } = config;
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
            return Err(broken(format!("the token `{token}` has the id {id}, expected at most {LARGEST_ID}")));
        }
        let cuts = guarded(|| Cuts::of(&pipeline)).map_err(broken)?;
        let vocab_size = largest.map_or(0, |(_, id)| id as usize + 1);
        Ok(Self {
            pipeline,
            max_length: 0,
            pad_token_id: 0,
            vocab_size,
            has_token_types,
            truncation,
            type_vocab_size: None,
            source,
            cuts,
            config,
            special_tokens,
            companions: Vec::new(),
        })
    }

    /// The length to which encodings are truncated, in tokens, including special tokens.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Sets the maximum length, in tokens, including special tokens.
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

    /// The id of the padding token.
    pub fn pad_token_id(&self) -> u32 {
        self.pad_token_id
    }

    /// The largest id plus one: the least number of rows that a model's word embeddings must have.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Encodes a text or a pair of texts, with special tokens, truncated to the maximum length.
    ///
    /// A pair is truncated as by transformers' `longest_first`: first at the end of the longer text, then at the end of
    /// both. A text of more than 32 KiB is read only as far as needed, and [`Encoding::full_length`] is then a lower bound.
    /// With `"truncation_side": "left"`, texts are truncated at their starts and read as a whole.
    ///
    /// # Errors
    /// When a word is out of vocabulary and the tokenizer has no unknown token, or when the model has no embedding for the
    /// second text's token type.
    pub fn encode(&self, text: &str, text_pair: Option<&str>) -> Result<Encoding, Error> {
        let room = self.max_length - self.special_tokens(text_pair.is_some());
        self.encode_to(text, text_pair, Extent::Tokens(room + 1))
    }

    /// Like [`Tokenizer::encode`], but counts all tokens of a text of any length for [`Encoding::full_length`].
    ///
    /// The count is a lower bound if a text has a stretch of more than 256 KiB that cannot be cut, because only the first
    /// 256 KiB of the stretch are counted. [`Encoding::full_length_is_exact`] is false then.
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
            // Both texts are truncated, and the longer one keeps one token more: the exact lengths decide which one it is.
            first.tokens = self.count(text)?.tokens;
            second.tokens = self.count(text_pair.unwrap_or_default())?.tokens;
        }
        let lengths = (first.tokens, second.as_ref().map_or(0, |second| second.tokens));
        let kept = longest_first(lengths, room);
        let cut = |mut encoding: tokenizers::Encoding, kept| {
            encoding.truncate(kept, 0, self.truncation);
            // Otherwise the post-processor combines all overflowing parts of both texts into further encodings.
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
        Ok(Encoding {
            input_ids: encoding.get_ids().to_vec(),
            token_type_ids: self.type_ids(&encoding)?,
            full_length: lengths.0 + lengths.1 + special_tokens,
            full_length_is_exact,
        })
    }

    /// Encodes many texts and pairs in parallel on rayon's thread pool. The encodings are in the order of the texts.
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

    /// Like [`Tokenizer::encode_all`], with the full lengths that [`Tokenizer::encode_counted`] counts.
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

    /// The number of special tokens added to a text or to a pair of texts.
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

/// An error without a path, which [`Tokenizer::guard`] fills in.
pub(crate) fn cannot_encode(text: &str, source: tokenizers::Error) -> Error {
    Error::Encode { path: PathBuf::new(), start: text.chars().take(40).collect(), source }
}

/// The number of tokens of each text that fit: the longer text is truncated first, then both.
fn longest_first((first, second): (usize, usize), room: usize) -> (usize, usize) {
    let shorter = first.min(second);
    let (kept_shorter, kept_longer) = match () {
        () if first + second <= room => return (first, second),
        () if shorter > room / 2 => (room / 2, room - room / 2),
        () => (shorter, room - shorter),
    };
    if first > second { (kept_longer, kept_shorter) } else { (kept_shorter, kept_longer) }
}

/// Reads the pipeline and returns it with the path of its file.
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
        if let Some(class) = Class::other_than_bert(folder, config)? {
            return Err(Error::NotBert { path, class });
        }
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

/// Builds a pipeline from the file at `path`, and turns panics into errors.
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
