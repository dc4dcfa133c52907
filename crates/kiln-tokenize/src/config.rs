use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokenizers::{AddedToken, TruncationDirection};

use crate::Error;
use crate::file::read_if_present;

/// The maximum length if the configuration has none: that of every BERT that Google released.
const DEFAULT_MAX_LENGTH: usize = 512;

/// transformers writes 10³⁰ for "no maximum"; no BERT has more position embeddings than this.
const LONGEST_MAX_LENGTH: f64 = 1e6;

/// `tokenizer_config.json`, with the special tokens of `special_tokens_map.json`.
#[derive(Debug, Default)]
pub(crate) struct TokenizerConfig {
    /// All keys unchanged, to be written back.
    pub keys: Map<String, Value>,
    pub settings: Settings,
    pub special_tokens: SpecialTokens,
}

impl TokenizerConfig {
    /// Reads both files; either may be absent.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("tokenizer_config.json");
        let mut config = match read_if_present(&path)? {
            Some(bytes) => Self {
                keys: parse(&path, &bytes)?,
                settings: parse(&path, &bytes)?,
                special_tokens: parse(&path, &bytes)?,
            },
            None => Self::default(),
        };
        let path = folder.join("special_tokens_map.json");
        if let Some(bytes) = read_if_present(&path)? {
            config.read_map(parse(&path, &bytes)?);
        }
        Ok(config)
    }

    /// As in transformers, the map has precedence, unless the configuration lists the added tokens.
    fn read_map(&mut self, map: SpecialTokens) {
        if self.settings.added_tokens_decoder.is_none() {
            let configured = std::mem::replace(&mut self.special_tokens, map);
            self.special_tokens.fill_in(configured);
        }
    }

    /// Like [`TokenizerConfig::read`], from keys and the bytes of the map in memory. `None` when they cannot be parsed.
    pub fn from_parts(keys: &Map<String, Value>, special_tokens_map: Option<&[u8]>) -> Option<Self> {
        let value = Value::Object(keys.clone());
        let special_tokens = serde_json::from_value(value.clone()).ok()?;
        let mut config = Self { keys: keys.clone(), settings: serde_json::from_value(value).ok()?, special_tokens };
        if let Some(bytes) = special_tokens_map {
            config.read_map(serde_json::from_slice(bytes).ok()?);
        }
        Some(config)
    }

    /// Whether the model has token types as an input: as `model_input_names` says, otherwise as the class does.
    pub fn has_token_types(&self) -> bool {
        match &self.settings.model_input_names {
            Some(names) => names.iter().any(|name| name == "token_type_ids"),
            None => {
                let class = self.settings.tokenizer_class.as_deref();
                class.is_none_or(|class| class.strip_suffix("Fast").unwrap_or(class) != "DistilBertTokenizer")
            }
        }
    }

    /// The end at which texts that are too long are truncated.
    pub fn truncation(&self) -> TruncationDirection {
        match self.settings.truncation_side.as_deref() {
            Some("left") => TruncationDirection::Left,
            _ => TruncationDirection::Right,
        }
    }

    /// The longest encoding, special tokens included.
    pub fn max_length(&self) -> usize {
        match self.settings.model_max_length.or(self.settings.max_len) {
            Some(length) if (1.0..=LONGEST_MAX_LENGTH).contains(&length) => length as usize,
            _ => DEFAULT_MAX_LENGTH,
        }
    }
}

pub(crate) fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Config { path: path.to_owned(), source })
}

/// The keys of `tokenizer_config.json` that Kiln reads, under transformers' names.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    pub tokenizer_class: Option<String>,
    pub do_lower_case: Option<bool>,
    pub tokenize_chinese_chars: Option<bool>,
    /// The default is the value of `do_lower_case`.
    pub strip_accents: Option<bool>,
    /// For ALBERT's pipeline.
    pub keep_accents: Option<bool>,
    /// For RoBERTa's pipeline and those of SentencePiece models.
    pub add_prefix_space: Option<bool>,
    /// For RoBERTa's pipeline: whether the offsets of a token exclude the space before it.
    pub trim_offsets: Option<bool>,
    /// The inputs of the model. Without `token_type_ids`, all token types are 0.
    pub model_input_names: Option<Vec<String>>,
    /// `left` if a text that is too long loses its first tokens.
    pub truncation_side: Option<String>,
    /// Tokens that are matched before a text is split, by id.
    pub added_tokens_decoder: Option<BTreeMap<u32, Added>>,
    /// A float, because 10³⁰ means "none".
    model_max_length: Option<f64>,
    /// The older name of `model_max_length`.
    max_len: Option<f64>,
}

/// The special tokens that a file declares.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SpecialTokens {
    pub bos_token: Option<SpecialToken>,
    pub eos_token: Option<SpecialToken>,
    pub unk_token: Option<SpecialToken>,
    pub sep_token: Option<SpecialToken>,
    pub pad_token: Option<SpecialToken>,
    pub cls_token: Option<SpecialToken>,
    pub mask_token: Option<SpecialToken>,
    pub extra_special_tokens: Option<MoreTokens>,
    /// The older name of `extra_special_tokens`.
    pub additional_special_tokens: Option<MoreTokens>,
}

impl SpecialTokens {
    /// All declared tokens.
    pub fn stated(&self) -> impl Iterator<Item = &SpecialToken> {
        let Self { bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token, .. } = self;
        let roles = [bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token];
        let more = [&self.extra_special_tokens, &self.additional_special_tokens].into_iter().flatten();
        roles.into_iter().flatten().chain(more.flat_map(MoreTokens::tokens))
    }

    /// Takes from `other` the tokens that are not declared here.
    pub fn fill_in(&mut self, other: Self) {
        self.bos_token = self.bos_token.take().or(other.bos_token);
        self.eos_token = self.eos_token.take().or(other.eos_token);
        self.unk_token = self.unk_token.take().or(other.unk_token);
        self.sep_token = self.sep_token.take().or(other.sep_token);
        self.pad_token = self.pad_token.take().or(other.pad_token);
        self.cls_token = self.cls_token.take().or(other.cls_token);
        self.mask_token = self.mask_token.take().or(other.mask_token);
        self.extra_special_tokens = self.extra_special_tokens.take().or(other.extra_special_tokens);
        self.additional_special_tokens = self.additional_special_tokens.take().or(other.additional_special_tokens);
    }
}

/// A special token: a plain string, or an added token with options.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum SpecialToken {
    Name(String),
    Added(Added),
}

impl SpecialToken {
    pub fn name(&self) -> &str {
        match self {
            Self::Name(name) | Self::Added(Added { content: name, .. }) => name,
        }
    }

    /// Converts to a special added token, which is never split.
    pub fn added(&self) -> AddedToken {
        match self {
            Self::Name(name) => AddedToken::from(name, true),
            Self::Added(token) => token.added(true),
        }
    }
}

/// A token that is matched before a text is split, with transformers' keys.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Added {
    pub content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: Option<bool>,
    #[serde(default)]
    pub special: bool,
}

impl Added {
    pub fn added(&self, special: bool) -> AddedToken {
        AddedToken::from(&self.content, special)
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
            .normalized(self.normalized.unwrap_or(!special))
    }
}

/// Special tokens without a predefined role: a list, or a map from names.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum MoreTokens {
    List(Vec<SpecialToken>),
    Named(BTreeMap<String, SpecialToken>),
}

impl MoreTokens {
    fn tokens(&self) -> Box<dyn Iterator<Item = &SpecialToken> + '_> {
        match self {
            Self::List(tokens) => Box::new(tokens.iter()),
            Self::Named(tokens) => Box::new(tokens.values()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(json: &str) -> TokenizerConfig {
        TokenizerConfig {
            settings: serde_json::from_str(json).expect("the settings are well-formed"),
            ..TokenizerConfig::default()
        }
    }

    #[test]
    fn a_maximum_that_stands_for_none_is_the_default() {
        assert_eq!(settings(r#"{"model_max_length": 77, "max_len": 9}"#).max_length(), 77);
        assert_eq!(settings(r#"{"max_len": 9}"#).max_length(), 9);
        for none in ["1000000000000000019884624838656", "1e30", "0", "-1", "null"] {
            let json = format!(r#"{{"model_max_length": {none}}}"#);
            assert_eq!(settings(&json).max_length(), DEFAULT_MAX_LENGTH, "{none}");
        }
    }

    /// As `_from_pretrained` of transformers 5.23.0 merges them.
    #[test]
    fn the_map_comes_first_unless_the_configuration_lists_the_added_tokens() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, json: &str| std::fs::write(folder.path().join(name), json).expect("it is writable");
        write("special_tokens_map.json", r#"{"cls_token": {"content": "<x>", "lstrip": true}, "sep_token": "<b>"}"#);
        for (added, cls, sep) in [("", "<x>", Some("<b>")), (r#""added_tokens_decoder": {},"#, "<a>", None)] {
            let config = r#"{ADDED "cls_token": {"content": "<a>", "lstrip": false}, "unk_token": "<c>"}"#;
            write("tokenizer_config.json", &config.replace("ADDED", added));
            let tokens = TokenizerConfig::read(folder.path()).expect("both files are well-formed").special_tokens;
            assert_eq!(tokens.cls_token.as_ref().map(SpecialToken::name), Some(cls));
            assert_eq!(tokens.cls_token.as_ref().map(|token| token.added().lstrip), Some(cls == "<x>"));
            assert_eq!(tokens.sep_token.as_ref().map(SpecialToken::name), sep);
            assert_eq!(tokens.unk_token.as_ref().map(SpecialToken::name), Some("<c>"));
            assert!(tokens.pad_token.is_none());
        }
    }
}
