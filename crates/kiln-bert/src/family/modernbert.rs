use kiln_kernels::Activation;

use super::{BERT, Family, Positions, Rename, SentenceHead};
use crate::HiddenAct;

/// ModernBERT (Warner et al., 2024): pre-normalized layers, rotary position embeddings, gated feed-forward blocks, local
/// attention in most layers, and biases only if the config enables them.
pub(super) const MODERNBERT: Family = Family {
    model_type: "modernbert",
    prefix: "model.",
    class: "ModernBert",
    config_keys: &[
        Rename { bert: "hidden_act", family: "hidden_activation" },
        Rename { bert: "hidden_dropout_prob", family: "embedding_dropout" },
        Rename { bert: "attention_probs_dropout_prob", family: "attention_dropout" },
        Rename { bert: "layer_norm_eps", family: "norm_eps" },
    ],
    tensors: &[
        Rename { bert: "embeddings.word_embeddings.", family: "embeddings.tok_embeddings." },
        Rename { bert: "embeddings.LayerNorm.", family: "embeddings.norm." },
        Rename { bert: "encoder.layer.", family: "layers." },
        Rename { bert: "attn.wqkv.", family: "attn.Wqkv." },
        Rename { bert: "attn.wo.", family: "attn.Wo." },
        Rename { bert: "mlp.wi.", family: "mlp.Wi." },
        Rename { bert: "mlp.wo.", family: "mlp.Wo." },
        Rename { bert: "cls.predictions.transform.dense.", family: "head.dense." },
        Rename { bert: "cls.predictions.transform.LayerNorm.", family: "head.norm." },
        Rename { bert: "cls.predictions.bias", family: "decoder.bias" },
        Rename { bert: "cls.predictions.decoder.", family: "decoder." },
    ],
    positions: Positions::Rotary,
    has_segments: false,
    has_pre_norm: true,
    defaults: r#"{
        "max_position_embeddings": 8192, "layer_norm_eps": 1e-5, "pad_token_id": 50283, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0
    }"#,
    // `classifier_activation` in the config takes precedence.
    head_act: Some(HiddenAct::Gelu),
    sentence_head: SentenceHead::Own {
        dense: "head.dense.",
        norm: Some("head.norm."),
        output: "classifier.",
        activation: Activation::Gelu,
        has_dropout: false,
    },
    has_token_head: true,
    answer_output: "classifier.",
    has_next_sentence: false,
    ..BERT
};
