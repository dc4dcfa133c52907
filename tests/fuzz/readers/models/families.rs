//! Classifiers with encoders whose configs and layers differ from BERT's.

use serde_json::json;

use super::folders::{HIDDEN, INTERMEDIATE, LAYERS, POSITIONS, Tensor, VOCAB_SIZE, folder, labels, linear, with};
use crate::seed::Seed;

/// ModernBERT with one global and one local layer.
pub fn modernbert() -> Seed {
    let weight = |name: &str, shape: &[usize]| -> Tensor { (format!("{name}.weight"), shape.to_vec()) };
    let mut tensors = vec![
        weight("model.embeddings.tok_embeddings", &[VOCAB_SIZE, HIDDEN]),
        weight("model.embeddings.norm", &[HIDDEN]),
    ];
    for layer in 0..LAYERS {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        if layer > 0 {
            tensors.push(weight(&name("attn_norm"), &[HIDDEN]));
        }
        tensors.push(weight(&name("attn.Wqkv"), &[3 * HIDDEN, HIDDEN]));
        tensors.push(weight(&name("attn.Wo"), &[HIDDEN, HIDDEN]));
        tensors.push(weight(&name("mlp_norm"), &[HIDDEN]));
        tensors.push(weight(&name("mlp.Wi"), &[2 * INTERMEDIATE, HIDDEN]));
        tensors.push(weight(&name("mlp.Wo"), &[HIDDEN, INTERMEDIATE]));
    }
    tensors.push(weight("model.final_norm", &[HIDDEN]));
    tensors.push(weight("head.dense", &[HIDDEN, HIDDEN]));
    tensors.push(weight("head.norm", &[HIDDEN]));
    tensors.extend(linear("classifier", HIDDEN, 3));
    let rope = |theta: f64| json!({"rope_type": "default", "rope_theta": theta});
    let more = json!({
        "model_type": "modernbert", "architectures": ["ModernBertForSequenceClassification"], "hidden_activation": "gelu",
        "norm_eps": 1e-5, "norm_bias": false, "attention_bias": false, "mlp_bias": false, "local_attention": 4,
        "layer_types": ["full_attention", "sliding_attention"], "classifier_pooling": "mean", "classifier_bias": false,
        "classifier_activation": "gelu", "embedding_dropout": 0.0, "attention_dropout": 0.0, "mlp_dropout": 0.0,
        "rope_parameters": {"full_attention": rope(160_000.0), "sliding_attention": rope(10_000.0)},
    });
    folder("modernbert", &with(more, &labels(&["a", "b", "c"])), &tensors)
}

/// ALBERT with one layer that is applied twice, and narrow embeddings.
pub fn albert() -> Seed {
    const EMBEDDING: usize = 6;
    let norm =
        |name: String, width: usize| [(format!("{name}.weight"), vec![width]), (format!("{name}.bias"), vec![width])];
    let mut tensors: Vec<Tensor> = vec![];
    for (name, rows) in [("word", VOCAB_SIZE), ("position", POSITIONS), ("token_type", 2)] {
        tensors.push((format!("albert.embeddings.{name}_embeddings.weight"), vec![rows, EMBEDDING]));
    }
    tensors.extend(norm("albert.embeddings.LayerNorm".to_owned(), EMBEDDING));
    tensors.extend(linear("albert.encoder.embedding_hidden_mapping_in", EMBEDDING, HIDDEN));
    let name = |part: &str| format!("albert.encoder.albert_layer_groups.0.albert_layers.0.{part}");
    for part in ["query", "key", "value", "dense"] {
        tensors.extend(linear(&name(&format!("attention.{part}")), HIDDEN, HIDDEN));
    }
    tensors.extend(norm(name("attention.LayerNorm"), HIDDEN));
    tensors.extend(linear(&name("ffn"), HIDDEN, INTERMEDIATE));
    tensors.extend(linear(&name("ffn_output"), INTERMEDIATE, HIDDEN));
    tensors.extend(norm(name("full_layer_layer_norm"), HIDDEN));
    tensors.extend(linear("albert.pooler", HIDDEN, HIDDEN));
    tensors.extend(linear("classifier", HIDDEN, 3));
    let more = json!({
        "model_type": "albert", "architectures": ["AlbertForSequenceClassification"], "embedding_size": EMBEDDING,
        "num_hidden_groups": 1, "inner_group_num": 1, "hidden_act": "gelu_new", "classifier_dropout_prob": 0.1,
    });
    folder("albert", &with(more, &labels(&["a", "b", "c"])), &tensors)
}
