use std::path::{Path, PathBuf};

use kiln_pretrain::MaskUnit;
use serde::{Deserialize, Serialize};

use super::RecipeError;
use super::checked;

/// `[masking]`: which tokens a masked language model predicts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Masking {
    /// The share of tokens to mask.
    #[serde(deserialize_with = "checked::share")]
    pub share: f64,
    /// What is masked together: `token`, `word` or `ngram`.
    pub unit: MaskUnit,
    /// A file with one word per line. With `unit = "word"`, the characters of such a word are masked together. This is for
    /// languages without spaces between words, such as Chinese.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<PathBuf>,
}

impl Default for Masking {
    fn default() -> Self {
        Self { share: 0.15, unit: MaskUnit::default(), words: None }
    }
}

impl Masking {
    /// Makes paths absolute.
    pub fn in_folder(self, folder: &Path) -> Self {
        Self { words: self.words.map(|path| folder.join(path)), ..self }
    }

    /// The config of the masking, with the words read from their file.
    pub fn config(&self) -> Result<kiln_pretrain::MaskingConfig, RecipeError> {
        let words = match &self.words {
            Some(path) => kiln_files::read_to_string(path)
                .map_err(|source| RecipeError::Read { path: path.clone(), source })?
                .lines()
                .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
                .collect(),
            None => Vec::new(),
        };
        Ok(kiln_pretrain::MaskingConfig { share: self.share, unit: self.unit, words })
    }
}
