use super::{BERT, Family, Projection, Rename};

/// ALBERT (Lan et al., 2020): narrow embeddings, and layers that share their weights. Its second pre-training task is
/// sentence-order prediction, whose head is not read.
pub(super) const ALBERT: Family = Family {
    model_type: "albert",
    prefix: "albert.",
    class: "Albert",
    config_keys: &[Rename { bert: "classifier_dropout", family: "classifier_dropout_prob" }],
    tensors: &[
        Rename { bert: "encoder.layer.", family: GROUPS },
        Rename { bert: "embeddings_project.", family: "encoder.embedding_hidden_mapping_in." },
        Rename { bert: "attention.self.query.", family: "attention.query." },
        Rename { bert: "attention.self.key.", family: "attention.key." },
        Rename { bert: "attention.self.value.", family: "attention.value." },
        Rename { bert: "attention.output.dense.", family: "attention.dense." },
        Rename { bert: "attention.output.LayerNorm.", family: "attention.LayerNorm." },
        Rename { bert: "intermediate.dense.", family: "ffn." },
        Rename { bert: "output.dense.", family: "ffn_output." },
        Rename { bert: "output.LayerNorm.", family: "full_layer_layer_norm." },
        Rename { bert: "pooler.dense.", family: "pooler." },
        Rename { bert: "cls.predictions.transform.dense.", family: "predictions.dense." },
        Rename { bert: "cls.predictions.transform.LayerNorm.", family: "predictions.LayerNorm." },
        Rename { bert: "cls.predictions.bias", family: "predictions.bias" },
        Rename { bert: "cls.predictions.decoder.", family: "predictions.decoder." },
    ],
    projection: Projection::Always,
    shares_layers: true,
    defaults: r#"{
        "embedding_size": 128, "num_hidden_groups": 1, "inner_group_num": 1, "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.1
    }"#,
    has_next_sentence: false,
    ..BERT
};

/// The part of a tensor's name before the group number.
const GROUPS: &str = "encoder.albert_layer_groups.";
/// The part of a tensor's name before the number of a layer in its group.
const LAYERS: &str = "albert_layers.";

/// Replaces the number of a layer among all layers with the number of its group and its number in the group.
pub(super) fn with_group(name: &str, group_size: usize) -> String {
    let numbered = || {
        let (before, after) = name.split_once(GROUPS)?;
        let (number, rest) = after.split_once('.')?;
        let number: usize = number.parse().ok()?;
        Some(format!("{before}{GROUPS}{}.{LAYERS}{}.{rest}", number / group_size, number % group_size))
    };
    numbered().unwrap_or_else(|| name.to_owned())
}

/// The inverse of [`with_group`].
pub(super) fn without_group(name: &str, group_size: usize) -> String {
    let numbered = || {
        let (before, after) = name.split_once(GROUPS)?;
        let (group, after) = after.split_once('.')?;
        let (layer, rest) = after.strip_prefix(LAYERS)?.split_once('.')?;
        let number = group.parse::<usize>().ok()?.checked_mul(group_size)?.checked_add(layer.parse().ok()?)?;
        Some(format!("{before}{GROUPS}{number}.{rest}"))
    };
    numbered().unwrap_or_else(|| name.to_owned())
}
