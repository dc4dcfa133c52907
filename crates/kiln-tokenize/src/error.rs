use std::io;
use std::path::PathBuf;

/// Why a tokenizer could not be read, used or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder has no tokenizer, or does not exist.
    #[error(
        "no tokenizer in `{}`: looked for `tokenizer.json`, then `vocab.txt`, then `vocab.json` and `merges.txt`",
        folder.display()
    )]
    Missing {
        /// The folder.
        folder: PathBuf,
    },
    /// There is a byte-level BPE vocabulary without its merges.
    #[error("`{}` is missing, and `vocab.json` needs it; add it, or save `tokenizer.json` with transformers", path.display())]
    NoMerges {
        /// The missing file.
        path: PathBuf,
    },
    /// There is a `vocab.txt`, but its tokenizer class is not BERT's. The file does not describe how other classes split texts.
    #[error(
        "`{}` is read as that of `BertTokenizer`, but `tokenizer_class` is `{class}`: save `tokenizer.json` with transformers",
        path.display()
    )]
    NotBert {
        /// `vocab.txt`.
        path: PathBuf,
        /// The class.
        class: String,
    },
    /// There is a byte-level BPE vocabulary, but its tokenizer class is not RoBERTa's. The files do not describe how other
    /// classes split texts.
    #[error(
        "`{}` is read for the class `RobertaTokenizer` alone: name that as `tokenizer_class` in `tokenizer_config.json`, \
         or save `tokenizer.json` with transformers",
        path.display()
    )]
    NotRoberta {
        /// `vocab.json`.
        path: PathBuf,
    },
    /// The folder has a SentencePiece model and no other tokenizer file.
    #[error(
        "`{}` is a SentencePiece model, which is not read: save `tokenizer.json` beside it with transformers, by \
         `AutoTokenizer.from_pretrained(folder).save_pretrained(folder)`",
        path.display()
    )]
    SentencePiece {
        /// The file.
        path: PathBuf,
    },
    /// A file exists but cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A configuration is not JSON, or one of its values has the wrong type.
    #[error("`{}` is not the configuration of a tokenizer", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The place in the file, what was found, and what was expected.
        source: serde_json::Error,
    },
    /// `tokenizer.json` or a vocabulary does not describe a tokenizer.
    #[error("`{}` is not a tokenizer", path.display())]
    Pipeline {
        /// The file.
        path: PathBuf,
        /// Why.
        source: tokenizers::Error,
    },
    /// A file describes a tokenizer that does not work: its sizes are inconsistent, or the tokenizer fails in use.
    #[error("`{}` describes a tokenizer that does not work: {reason}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A token's id has no row in the model's word embeddings.
    #[error(
        "`{}`: the token `{token}` has id {id}, but the model's word embeddings have {vocab_size} rows; \
         tokenizer and model do not belong together",
        path.display()
    )]
    TokenBeyondModel {
        /// The tokenizer's file.
        path: PathBuf,
        /// The token.
        token: String,
        /// Its id.
        id: u32,
        /// `vocab_size` of the model.
        vocab_size: usize,
    },
    /// A token type has no row in the model's token type embeddings.
    #[error("`{}` gives tokens the token type {type_id}, but the model has type_vocab_size {type_vocab_size}", path.display())]
    TypeBeyondModel {
        /// The tokenizer's file.
        path: PathBuf,
        /// The token type; usually 1, for the second text of a pair.
        type_id: u32,
        /// `type_vocab_size` of the model.
        type_vocab_size: usize,
    },
    /// The vocabulary lacks a special token that encoding or padding needs.
    #[error("the vocabulary in `{}` has no {role}: looked for {tried}", folder.display())]
    NoSpecialToken {
        /// The tokenizer's folder.
        folder: PathBuf,
        /// Its key in `tokenizer_config.json`, such as `pad_token`.
        role: &'static str,
        /// The names looked for.
        tried: String,
    },
    /// The special tokens alone exceed the maximum length.
    #[error(
        "max_length is {max_length}; expected at least {special_tokens}, the number of special tokens of a pair of texts"
    )]
    MaxLength {
        /// The requested length, in tokens.
        max_length: usize,
        /// The number of special tokens of a pair of texts.
        special_tokens: usize,
    },
    /// No vocabulary can be trained on the texts.
    #[error("cannot build a vocabulary: {reason}")]
    Vocabulary {
        /// Why.
        reason: String,
    },
    /// A text cannot be encoded. Usually a word is out of vocabulary and there is no unknown token.
    #[error("`{}`: cannot encode a text that starts with `{start}`", path.display())]
    Encode {
        /// The tokenizer's file.
        path: PathBuf,
        /// The first characters of the text.
        start: String,
        /// Why.
        source: tokenizers::Error,
    },
}
