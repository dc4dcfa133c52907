use serde::{Deserialize, Serialize};

use crate::Error;
use crate::modules::{Modules, Patterns, Targets, one_or_many};

/// The settings of an adapter: the table `[adapter]` of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdapterConfig {
    /// The rank: the columns of the first factor and the rows of the second.
    pub rank: usize,
    /// The adapter's α: the  product of both factors is multiplied by `alpha / rank`, or by `alpha / √rank` with
    /// [`Variant::Rslora`].
    pub alpha: f64,
    /// Dropout probability of the adapter's input in training. A feature is dropped for all tokens of a batch at once;
    /// peft drops the features of each token independently.
    pub dropout: f64,
    /// The layers with an adapter, matched as in peft.
    pub target_modules: Modules,
    /// Layers among `target_modules` that get no adapter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_modules: Option<Modules>,
    /// Numbers of the encoder layers that have adapters; empty for all. Requires that `target_modules` is a list.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub layers_to_transform: Vec<usize>,
    /// Regular expressions for the part of a layer's name before its number, such as `layer`; empty for any.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub layers_pattern: Vec<String>,
    /// Ranks of layers whose rank is not `rank`.
    #[serde(skip_serializing_if = "Patterns::is_empty")]
    pub rank_pattern: Patterns<usize>,
    /// α of layers whose α is not `alpha`.
    #[serde(skip_serializing_if = "Patterns::is_empty")]
    pub alpha_pattern: Patterns<f64>,
    /// How the product is added.
    pub variant: Variant,
    /// Whether the pooler is trained too. A fresh pooler is always trained.
    pub train_pooler: bool,
}

/// How the product of both factors is added to a weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// LoRA (Hu et al., 2021).
    #[default]
    Lora,
    /// LoRA with a scale that suits high ranks (Kalajdzievski, 2023).
    Rslora,
    /// LoRA with a trained norm of the summed weight for each output (Liu et al., 2024).
    Dora,
    /// DoRA with the scale of rsLoRA.
    Rsdora,
}

impl Default for AdapterConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            dropout: 0.0,
            target_modules: Modules::named(&["query", "value"]),
            exclude_modules: None,
            layers_to_transform: Vec::new(),
            layers_pattern: Vec::new(),
            rank_pattern: Patterns::new(),
            alpha_pattern: Patterns::new(),
            variant: Variant::Lora,
            train_pooler: false,
        }
    }
}

impl AdapterConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// When a setting is out of range, or contradicts another one.
    pub fn check(&self) -> Result<(), Error> {
        /// No layer of an encoder is wider.
        const HIGHEST_RANK: usize = 1 << 16;
        let error =
            |field, found: String, expected: &str| Err(Error::Setting { field, found, expected: expected.into() });
        let is_rank = |rank: &usize| (1..=HIGHEST_RANK).contains(rank);
        let is_alpha = |alpha: &f64| *alpha > 0.0 && alpha.is_finite();
        if let Some((name, rank)) = self.rank_pattern.iter().find(|(_, rank)| !is_rank(rank)) {
            return error("rank_pattern", format!("{rank} for `{name}`"), "whole numbers from 1 to 65536");
        }
        if let Some((name, alpha)) = self.alpha_pattern.iter().find(|(_, alpha)| !is_alpha(alpha)) {
            return error("alpha_pattern", format!("{alpha} for `{name}`"), "numbers above 0");
        }
        let has_names = matches!(self.target_modules, Modules::Names(_));
        match () {
            () if !is_rank(&self.rank) => error("rank", self.rank.to_string(), "a whole number from 1 to 65536"),
            () if !is_alpha(&self.alpha) => error("alpha", self.alpha.to_string(), "a number above 0"),
            () if !(0.0..1.0).contains(&self.dropout) => {
                error("dropout", self.dropout.to_string(), "a share in [0, 1)")
            }
            () if self.target_modules == Modules::Names(Vec::new()) => {
                error("target_modules", "empty".to_owned(), "names of layers, as [\"query\", \"value\"]")
            }
            () if !self.layers_to_transform.is_empty() && !has_names => {
                error("target_modules", "a string".to_owned(), "a list of names beside `layers_to_transform`")
            }
            () if self.layers_to_transform.is_empty() && !self.layers_pattern.is_empty() => {
                error("layers_to_transform", "empty".to_owned(), "numbers of layers beside `layers_pattern`")
            }
            () => Targets::new(self).map(|_| ()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_named_by_lists_patterns_and_numbers() {
        let read = |text| serde_json::from_str::<AdapterConfig>(text);
        let config = read(r#"{"target_modules": "all-linear"}"#).expect("peft's name");
        assert_eq!(config.target_modules, Modules::Pattern("all-linear".to_owned()));
        let config = read(r#"{"layers_to_transform": 3, "layers_pattern": ["layer"]}"#).expect("one number");
        assert_eq!((config.layers_to_transform, config.layers_pattern), (vec![3], vec!["layer".to_owned()]));
        let error = read(r#"{"target_modules": 7}"#).expect_err("a number").to_string();
        assert!(error.contains("expected a list of names, a regular expression, or \"all-linear\""), "{error}");
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let good = AdapterConfig::default;
        for (config, field) in [
            (AdapterConfig { rank: 0, ..good() }, "adapter.rank is 0"),
            (AdapterConfig { alpha: f64::NAN, ..good() }, "adapter.alpha is NaN"),
            (AdapterConfig { dropout: 1.0, ..good() }, "adapter.dropout is 1"),
            (AdapterConfig { target_modules: Modules::named(&[]), ..good() }, "adapter.target_modules is empty"),
            (AdapterConfig { layers_pattern: vec!["layer".to_owned()], ..good() }, "layers_to_transform is empty"),
            (
                AdapterConfig { rank_pattern: Patterns::from([("query".to_owned(), 0)]), ..good() },
                "adapter.rank_pattern is 0 for `query`",
            ),
            (
                AdapterConfig { alpha_pattern: Patterns::from([("query".to_owned(), -1.0)]), ..good() },
                "adapter.alpha_pattern is -1 for `query`",
            ),
            (
                AdapterConfig { target_modules: Modules::Pattern("(query".to_owned()), ..good() },
                "adapter.target_modules is \"(query\"; expected a regular expression (error: unclosed group)",
            ),
            (
                AdapterConfig { exclude_modules: Some(Modules::Pattern("a)|(b".to_owned())), ..good() },
                "adapter.exclude_modules is \"a)|(b\"",
            ),
            (
                AdapterConfig {
                    target_modules: Modules::Pattern(".*query".to_owned()),
                    layers_to_transform: vec![1],
                    ..good()
                },
                "adapter.target_modules is a string",
            ),
        ] {
            let message = config.check().expect_err(field).to_string();
            assert!(message.contains(field), "{message}");
        }
        assert!(good().check().is_ok());
    }
}
