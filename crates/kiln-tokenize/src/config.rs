use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::Error;
use crate::file::read_if_present;

/// The maximum length where the configuration states none: that of every BERT that Google released.
const DEFAULT_MAX_LENGTH: usize = 512;

/// transformers writes 10³⁰ for "no maximum"; no BERT has more position embeddings than this.
const LONGEST_MAX_LENGTH: f64 = 1e6;

/// `tokenizer_config.json`, with `special_tokens_map.json` filling in the special tokens it does not name.
#[derive(Debug, Default)]
pub(crate) struct TokenizerConfig {
    /// Every key as it was, to be written back.
    pub keys: Map<String, Value>,
    pub settings: Settings,
    pub special_tokens: SpecialTokens,
}

impl TokenizerConfig {
    /// Reads what there is of the two files; both may be absent.
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
            config.special_tokens.fill_in(parse(&path, &bytes)?);
        }
        Ok(config)
    }

    /// The same of keys and of the other file's bytes in memory; none where they are not a configuration.
    pub fn from_parts(keys: &Map<String, Value>, special_tokens_map: Option<&[u8]>) -> Option<Self> {
        let value = Value::Object(keys.clone());
        let mut special_tokens: SpecialTokens = serde_json::from_value(value.clone()).ok()?;
        if let Some(bytes) = special_tokens_map {
            special_tokens.fill_in(serde_json::from_slice(bytes).ok()?);
        }
        Some(Self { keys: keys.clone(), settings: serde_json::from_value(value).ok()?, special_tokens })
    }

    /// The longest encoding, special tokens included.
    pub fn max_length(&self) -> usize {
        match self.settings.model_max_length {
            Some(length) if (1.0..=LONGEST_MAX_LENGTH).contains(&length) => length as usize,
            _ => DEFAULT_MAX_LENGTH,
        }
    }
}

fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Config { path: path.to_owned(), source })
}

/// The keys of `tokenizer_config.json` that a BERT tokenizer reads, under transformers' names.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    pub tokenizer_class: Option<String>,
    pub do_lower_case: Option<bool>,
    pub tokenize_chinese_chars: Option<bool>,
    /// Absent: as `do_lower_case`.
    pub strip_accents: Option<bool>,
    /// Of ALBERT's pipeline.
    pub keep_accents: Option<bool>,
    pub add_prefix_space: Option<bool>,
    /// A float, because 10³⁰ means "none".
    model_max_length: Option<f64>,
}

/// The names of the special tokens, where they are stated.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SpecialTokens {
    pub bos_token: Option<SpecialToken>,
    pub eos_token: Option<SpecialToken>,
    pub unk_token: Option<SpecialToken>,
    pub sep_token: Option<SpecialToken>,
    pub pad_token: Option<SpecialToken>,
    pub cls_token: Option<SpecialToken>,
    pub mask_token: Option<SpecialToken>,
}

impl SpecialTokens {
    /// The names that are stated.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let Self { bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token } = self;
        let tokens = [bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token];
        tokens.into_iter().flatten().map(SpecialToken::name)
    }

    fn fill_in(&mut self, other: Self) {
        self.bos_token = self.bos_token.take().or(other.bos_token);
        self.eos_token = self.eos_token.take().or(other.eos_token);
        self.unk_token = self.unk_token.take().or(other.unk_token);
        self.sep_token = self.sep_token.take().or(other.sep_token);
        self.pad_token = self.pad_token.take().or(other.pad_token);
        self.cls_token = self.cls_token.take().or(other.cls_token);
        self.mask_token = self.mask_token.take().or(other.mask_token);
    }
}

/// A token's name, alone or as the `content` of an added token.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum SpecialToken {
    Name(String),
    Added { content: String },
}

impl SpecialToken {
    pub fn name(&self) -> &str {
        match self {
            Self::Name(name) | Self::Added { content: name } => name,
        }
    }
}

/// The name that is stated for a special token, or else its usual one.
pub(crate) fn name<'a>(stated: &'a Option<SpecialToken>, default: &'a str) -> &'a str {
    stated.as_ref().map_or(default, SpecialToken::name)
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
        assert_eq!(settings(r#"{"model_max_length": 77}"#).max_length(), 77);
        for none in ["1000000000000000019884624838656", "1e30", "0", "-1", "null"] {
            let json = format!(r#"{{"model_max_length": {none}}}"#);
            assert_eq!(settings(&json).max_length(), DEFAULT_MAX_LENGTH, "{none}");
        }
    }

    #[test]
    fn the_map_fills_in_what_the_configuration_does_not_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, json| std::fs::write(folder.path().join(name), json).expect("it is writable");
        write("tokenizer_config.json", r#"{"cls_token": {"content": "<a>", "lstrip": false}, "sep_token": null}"#);
        write("special_tokens_map.json", r#"{"cls_token": "<x>", "sep_token": "<b>"}"#);
        let tokens = TokenizerConfig::read(folder.path()).expect("both files are well-formed").special_tokens;
        assert_eq!(tokens.cls_token.as_ref().map(SpecialToken::name), Some("<a>"));
        assert_eq!(tokens.sep_token.as_ref().map(SpecialToken::name), Some("<b>"));
        assert!(tokens.pad_token.is_none());
    }
}
