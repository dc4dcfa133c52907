//! Keys of `config.json` that only encoders with pre-normalization have.

use burn::tensor::Device;
use serde::Deserialize;
use serde_json::Value;

use crate::hidden_act::HIDDEN_ACTS;
use crate::{BertConfig, HiddenAct, Linear};

/// A key with an unsupported value: its name, its value, and the allowed values.
pub(crate) type Refusal = (String, String, String);

/// The names for global and local attention in `layer_types` and `rope_parameters`.
const GLOBAL: &str = "full_attention";
const LOCAL: &str = "sliding_attention";

/// The attention settings of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AttentionKind {
    /// θ of the rotary positions.
    pub(crate) theta: f64,
    /// The largest distance of an attended position; unlimited if none.
    pub(crate) window: Option<usize>,
}

impl BertConfig {
    /// A flag that only some families have; false if the config does not have it.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.extra.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    /// The attention settings of a layer, global or local.
    pub(crate) fn attention_kind(&self, layer: usize) -> AttentionKind {
        let is_global = match self.extra.get("layer_types").and_then(Value::as_array) {
            Some(kinds) => kinds.get(layer).is_some_and(|kind| kind == GLOBAL),
            None => layer.is_multiple_of(self.number("global_attn_every_n_layers").unwrap_or(3).max(1)),
        };
        let (kind, key, default) = match is_global {
            true => (GLOBAL, "global_rope_theta", 160_000.0),
            false => (LOCAL, "local_rope_theta", 10_000.0),
        };
        let of_kind = self.rope(kind).and_then(|rope| rope.get("rope_theta"));
        let theta = of_kind.or_else(|| self.extra.get(key)).and_then(Value::as_f64).unwrap_or(default);
        // In transformers, `sliding_window` is half of `local_attention`, and has precedence.
        let stated = || self.number("sliding_window");
        let window = (!is_global).then(|| stated().unwrap_or(self.number("local_attention").unwrap_or(128) / 2));
        AttentionKind { theta, window }
    }

    /// The activation of transformers' prediction heads.
    pub fn head_act(&self) -> HiddenAct {
        let of_config = self.extra.get("classifier_activation").filter(|_| self.family().has_pre_norm);
        match of_config.map(HiddenAct::deserialize) {
            Some(Ok(act)) => act,
            _ => self.family().head_act.unwrap_or(self.hidden_act),
        }
    }

    /// Whether transformers' sentence-level head reads the mean of all tokens instead of the first token.
    pub fn pools_mean(&self) -> bool {
        self.family().has_pre_norm && self.extra.get("classifier_pooling").is_some_and(|pooling| pooling == "mean")
    }

    fn number(&self, key: &str) -> Option<usize> {
        self.extra.get(key).and_then(Value::as_u64).map(|number| number as usize)
    }

    fn rope(&self, kind: &str) -> Option<&Value> {
        self.extra.get("rope_parameters")?.get(kind).filter(|rope| !rope.is_null())
    }

    /// The linear layer at the end of a block of a pre-normalized layer. The standard deviation of its fresh weights is
    /// divided by √(2 · layers), because the residual sums up over all layers.
    pub(crate) fn init_output_linear(&self, d_input: usize, d_output: usize, device: &Device) -> Linear {
        let deviation = self.initializer_range / (2.0 * self.num_hidden_layers as f64).sqrt();
        Linear::new([d_input, d_output], deviation, device)
    }

    /// The linear layer of transformers' prediction heads: with a bias, unless the family has pre-normalization and
    /// `classifier_bias` is not set.
    pub fn init_head_linear(&self, d_input: usize, d_output: usize, device: &Device) -> Linear {
        let has_bias = !self.family().has_pre_norm || self.flag("classifier_bias");
        self.init_linear(d_input, d_output, device).biased(has_bias)
    }

    /// Checks the keys that only these encoders have.
    pub(crate) fn check_pre_norm(&self) -> Result<(), Refusal> {
        let head = self.hidden_size / self.num_attention_heads;
        if !head.is_multiple_of(2) {
            let expected = format!("heads of an even width; they have {head}");
            return Err(("num_attention_heads".to_owned(), self.num_attention_heads.to_string(), expected));
        }
        let given = |key: &'static str| self.extra.get(key).filter(|value| !value.is_null()).map(|value| (key, value));
        let refused =
            |key: &str, value: &Value, expected: &str| Err((key.to_owned(), value.to_string(), expected.to_owned()));
        for key in ["norm_bias", "attention_bias", "mlp_bias", "classifier_bias", "decoder_bias"] {
            if let Some((key, value)) = given(key).filter(|(_, value)| !value.is_boolean()) {
                return refused(key, value, "true or false");
            }
        }
        for key in ["local_attention", "sliding_window", "global_attn_every_n_layers"] {
            if let Some((key, value)) = given(key).filter(|(_, value)| value.as_u64().is_none_or(|number| number == 0))
            {
                return refused(key, value, "a number of at least 1");
            }
        }
        let is_pooling = |value: &Value| value == "cls" || value == "mean";
        if let Some((key, value)) = given("classifier_pooling").filter(|(_, value)| !is_pooling(value)) {
            return refused(key, value, "\"cls\" or \"mean\"");
        }
        if let Some((key, value)) =
            given("classifier_activation").filter(|(_, act)| HiddenAct::deserialize(*act).is_err())
        {
            return refused(key, value, HIDDEN_ACTS);
        }
        let is_share = |value: &Value| value.as_f64().is_some_and(|share| (0.0..1.0).contains(&share));
        if let Some((key, value)) = given("mlp_dropout").filter(|(_, value)| !is_share(value)) {
            return refused(key, value, "a share in [0, 1)");
        }
        if let Some((key, value)) = given("layer_types") {
            let is_kind = |kind: &Value| kind == GLOBAL || kind == LOCAL;
            let kinds = value.as_array().filter(|kinds| kinds.iter().all(is_kind));
            if kinds.is_none_or(|kinds| kinds.len() < self.num_hidden_layers) {
                let expected = format!("\"{GLOBAL}\" or \"{LOCAL}\" for each of {} layers", self.num_hidden_layers);
                return refused(key, value, &expected);
            }
        }
        self.check_rope()
    }

    fn check_rope(&self) -> Result<(), Refusal> {
        let is_theta = |theta: &Value| theta.as_f64().is_some_and(|theta| theta >= 1.0 && theta.is_finite());
        for kind in [GLOBAL, LOCAL] {
            let Some(rope) = self.rope(kind) else { continue };
            let key = |key: &str| format!("rope_parameters.{kind}.{key}");
            // The older name of the key is `type`.
            let kind_of_rope = rope.get("rope_type").or_else(|| rope.get("type"));
            if let Some(found) = kind_of_rope.filter(|found| **found != "default") {
                return Err((key("rope_type"), found.to_string(), "\"default\"".to_owned()));
            }
            if let Some(found) = rope.get("rope_theta").filter(|found| !is_theta(found)) {
                return Err((key("rope_theta"), found.to_string(), "a number of at least 1".to_owned()));
            }
        }
        for key in ["global_rope_theta", "local_rope_theta"] {
            if let Some(found) = self.extra.get(key).filter(|found| !found.is_null() && !is_theta(found)) {
                return Err((key.to_owned(), found.to_string(), "a number of at least 1".to_owned()));
            }
        }
        match self.extra.get("rope_scaling").filter(|found| !found.is_null()) {
            Some(found) => Err(("rope_scaling".to_owned(), found.to_string(), "nothing".to_owned())),
            None => Ok(()),
        }
    }

    /// Parameters of the embeddings, the encoder and the prediction head.
    pub(crate) fn pre_norm_parameters(&self) -> u128 {
        let [hidden, inner, layers, words] =
            [self.hidden_size, self.intermediate_size, self.num_hidden_layers, self.vocab_size]
                .map(|size| size as u128);
        let linear = |input: u128, output: u128, bias: &str| {
            input.saturating_add(u128::from(self.flag(bias))).saturating_mul(output)
        };
        let norm = hidden.saturating_mul(1 + u128::from(self.flag("norm_bias")));
        let attention =
            linear(hidden, 3 * hidden, "attention_bias").saturating_add(linear(hidden, hidden, "attention_bias"));
        let feed_forward = linear(hidden, 2 * inner, "mlp_bias").saturating_add(linear(inner, hidden, "mlp_bias"));
        let layer = attention.saturating_add(feed_forward).saturating_add(2 * norm);
        let head = linear(hidden, hidden, "classifier_bias").saturating_add(norm);
        // The first layer has one normalization less than is counted here; the extra one counts for the embeddings.
        let around = words.saturating_mul(hidden).saturating_add(head).saturating_add(norm);
        layer.saturating_mul(layers).saturating_add(around)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn config(more: Value) -> BertConfig {
        let mut config = BertConfig { num_hidden_layers: 4, ..BertConfig::base() };
        config.extra.insert("model_type".to_owned(), "modernbert".into());
        config.extra.extend(more.as_object().expect("it is written as one").clone());
        config
    }

    #[test]
    fn both_forms_of_the_config_say_how_layers_attend() {
        let kinds = |more| {
            let config = config(more);
            config.check(Path::new("config.json")).expect("it can be computed");
            (0..4).map(|layer| config.attention_kind(layer)).collect::<Vec<_>>()
        };
        let global = AttentionKind { theta: 160_000.0, window: None };
        let local = AttentionKind { theta: 10_000.0, window: Some(64) };
        assert_eq!(kinds(json!({})), [global, local, local, global]);
        let published = json!({"global_attn_every_n_layers": 2, "global_rope_theta": 5e5, "local_attention": 17});
        let (global, near) = (AttentionKind { theta: 5e5, ..global }, AttentionKind { window: Some(8), ..local });
        assert_eq!(kinds(published), [global, near, global, near]);
        let rope = json!({"full_attention": {"rope_type": "default", "rope_theta": 5e5}, "sliding_attention": null});
        let types = json!({"rope_parameters": rope, "layer_types": [LOCAL, GLOBAL, LOCAL, LOCAL]});
        assert_eq!(kinds(types), [local, global, local, local]);
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        for (more, field) in [
            (json!({"norm_bias": 1}), "norm_bias"),
            (json!({"local_attention": 0}), "local_attention"),
            (json!({"global_attn_every_n_layers": "3"}), "global_attn_every_n_layers"),
            (json!({"classifier_pooling": "max"}), "classifier_pooling"),
            (json!({"classifier_activation": "mish"}), "classifier_activation"),
            (json!({"mlp_dropout": 1.0}), "mlp_dropout"),
            (json!({"layer_types": [GLOBAL]}), "layer_types"),
            (json!({"layer_types": [GLOBAL, LOCAL, LOCAL, "none"]}), "layer_types"),
            (json!({"rope_parameters": {GLOBAL: {"rope_type": "yarn"}}}), "rope_parameters.full_attention.rope_type"),
            (json!({"local_rope_theta": -1}), "local_rope_theta"),
            (json!({"rope_scaling": {"rope_type": "linear"}}), "rope_scaling"),
        ] {
            let error = config(more).check(Path::new("config.json")).expect_err(field).to_string();
            assert!(error.contains(&format!("`{field}` is ")), "{error}");
        }
        let odd = BertConfig { hidden_size: 15, num_attention_heads: 3, ..config(json!({})) };
        let error = odd.check(Path::new("config.json")).expect_err("5 features a head").to_string();
        assert!(error.contains("an even width"), "{error}");
    }
}
