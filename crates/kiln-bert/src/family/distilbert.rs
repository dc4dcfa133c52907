use kiln_kernels::Activation;

use super::{BERT, Family, Rename, SentenceHead};

/// DistilBERT (Sanh et al., 2019).
pub(super) const DISTILBERT: Family = Family {
    model_type: "distilbert",
    prefix: "distilbert.",
    class: "DistilBert",
    config_keys: &[
        Rename { bert: "hidden_size", family: "dim" },
        Rename { bert: "num_hidden_layers", family: "n_layers" },
        Rename { bert: "num_attention_heads", family: "n_heads" },
        Rename { bert: "intermediate_size", family: "hidden_dim" },
        Rename { bert: "hidden_act", family: "activation" },
        Rename { bert: "hidden_dropout_prob", family: "dropout" },
        Rename { bert: "attention_probs_dropout_prob", family: "attention_dropout" },
        Rename { bert: "classifier_dropout", family: "seq_classif_dropout" },
    ],
    tensors: &[
        Rename { bert: "encoder.", family: "transformer." },
        Rename { bert: "attention.self.query.", family: "attention.q_lin." },
        Rename { bert: "attention.self.key.", family: "attention.k_lin." },
        Rename { bert: "attention.self.value.", family: "attention.v_lin." },
        Rename { bert: "attention.output.dense.", family: "attention.out_lin." },
        Rename { bert: "attention.output.LayerNorm.", family: "sa_layer_norm." },
        Rename { bert: "intermediate.dense.", family: "ffn.lin1." },
        Rename { bert: "output.dense.", family: "ffn.lin2." },
        Rename { bert: "output.LayerNorm.", family: "output_layer_norm." },
        Rename { bert: "cls.predictions.transform.dense.", family: "vocab_transform." },
        Rename { bert: "cls.predictions.transform.LayerNorm.", family: "vocab_layer_norm." },
        Rename { bert: "cls.predictions.bias", family: "vocab_projector.bias" },
        Rename { bert: "cls.predictions.decoder.", family: "vocab_projector." },
    ],
    has_segments: false,
    fixed: r#"{"layer_norm_eps": 1e-12}"#,
    sentence_head: SentenceHead::Own {
        dense: "pre_classifier.",
        norm: None,
        output: "classifier.",
        activation: Activation::Relu,
        has_dropout: false,
    },
    has_next_sentence: false,
    ..BERT
};
