use serde::{Deserialize, Deserializer, Serialize};

use crate::Error;

/// The shape of an adapter: `[adapter]` of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdapterConfig {
    /// Columns of the first factor and rows of the second.
    pub rank: usize,
    /// The product of both is multiplied by `alpha / rank`, or with [`Variant::Rslora`] by `alpha / √rank`.
    pub alpha: f64,
    /// The probability with which training drops a feature of a layer's input on the way through the adapter, for all tokens
    /// of a batch at once; peft drops each token's by itself.
    pub dropout: f64,
    /// The layers with an adapter, as peft matches them: a name is that of a layer or its last parts, after a dot. The one
    /// name `all-linear` is all layers of the encoder but the pooler; as with peft, it may stand without a list.
    #[serde(deserialize_with = "one_or_many")]
    pub target_modules: Vec<String>,
    /// How the product is added.
    pub variant: Variant,
    /// Whether the pooler learns too. A fresh one does in any case.
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
    /// LoRA whose sum has norms that are learnt, one for each output (Liu et al., 2024).
    Dora,
}

impl Default for AdapterConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            dropout: 0.0,
            target_modules: ["query", "value"].map(str::to_owned).to_vec(),
            variant: Variant::Lora,
            train_pooler: false,
        }
    }
}

/// The one name that is all layers.
pub(crate) const ALL_LINEAR: &str = "all-linear";

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a list of names, or \"all-linear\"")]
    enum Targets {
        One(String),
        Many(Vec<String>),
    }
    match Targets::deserialize(deserializer)? {
        Targets::One(name) if name == ALL_LINEAR => Ok(vec![name]),
        Targets::One(name) => {
            let found = format!("found {name:?}, expected a list of names, or {ALL_LINEAR:?}");
            Err(serde::de::Error::custom(found))
        }
        Targets::Many(names) => Ok(names),
    }
}

impl AdapterConfig {
    /// Whether the settings are in range.
    ///
    /// # Errors
    /// When one is not.
    pub fn check(&self) -> Result<(), Error> {
        /// No layer of an encoder is wider.
        const HIGHEST_RANK: usize = 1 << 16;
        let error =
            |field, found: String, expected: &str| Err(Error::Setting { field, found, expected: expected.into() });
        match () {
            () if !(1..=HIGHEST_RANK).contains(&self.rank) => {
                error("rank", self.rank.to_string(), "a whole number from 1 to 65536")
            }
            () if !(self.alpha > 0.0 && self.alpha.is_finite()) => {
                error("alpha", self.alpha.to_string(), "a number above 0")
            }
            () if !(0.0..1.0).contains(&self.dropout) => {
                error("dropout", self.dropout.to_string(), "a share in [0, 1)")
            }
            () if self.target_modules.is_empty() => {
                error("target_modules", "empty".to_owned(), "names of layers, as [\"query\", \"value\"]")
            }
            () => Ok(()),
        }
    }

    /// What the product of both factors is multiplied by.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.variant == Variant::Rslora { rank.sqrt() } else { rank }
    }

    /// Whether a target names this layer.
    pub(crate) fn is_target(&self, layer: &str) -> bool {
        self.target_modules.iter().any(|target| matches(target, layer))
    }
}

/// Whether a target is the layer's name, or its last parts.
pub(crate) fn matches(target: &str, layer: &str) -> bool {
    layer.strip_suffix(target).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_whole_parts_of_a_name() {
        let layer = "bert.encoder.layer.0.attention.output.dense";
        for (target, expected) in [
            ("dense", true),
            ("output.dense", true),
            ("attention.output.dense", true),
            ("ense", false),
            ("output", false),
        ] {
            assert_eq!(matches(target, layer), expected, "{target}");
        }
        assert!(matches(layer, layer));
    }

    #[test]
    fn all_layers_may_be_named_as_peft_names_them() {
        let read = |text| serde_json::from_str::<AdapterConfig>(text).map(|config| config.target_modules);
        let all = vec![ALL_LINEAR.to_owned()];
        assert_eq!(read(r#"{"target_modules": "all-linear"}"#).expect("peft's name"), all);
        assert_eq!(read(r#"{"target_modules": ["all-linear"]}"#).expect("a list of it"), all);
        for wrong in [r#"{"target_modules": "query"}"#, r#"{"target_modules": 7}"#] {
            let error = read(wrong).expect_err(wrong).to_string();
            assert!(error.contains("expected a list of names, or \"all-linear\""), "{error}");
        }
    }

    #[test]
    fn scales_are_peft_s() {
        let config = |variant| AdapterConfig { rank: 4, alpha: 16.0, variant, ..AdapterConfig::default() };
        assert_eq!(config(Variant::Lora).scale(), 4.0);
        assert_eq!(config(Variant::Dora).scale(), 4.0);
        assert_eq!(config(Variant::Rslora).scale(), 8.0);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let good = AdapterConfig::default;
        for (config, field) in [
            (AdapterConfig { rank: 0, ..good() }, "adapter.rank is 0"),
            (AdapterConfig { alpha: f64::NAN, ..good() }, "adapter.alpha is NaN"),
            (AdapterConfig { dropout: 1.0, ..good() }, "adapter.dropout is 1"),
            (AdapterConfig { target_modules: vec![], ..good() }, "adapter.target_modules is empty"),
        ] {
            let message = config.check().expect_err(field).to_string();
            assert!(message.contains(field), "{message}");
        }
        assert!(good().check().is_ok());
    }
}
