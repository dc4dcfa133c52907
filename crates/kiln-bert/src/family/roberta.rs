use kiln_kernels::Activation;

use super::{BERT, Family, Positions, Rename, SentenceHead};
use crate::HiddenAct;

/// RoBERTa (Liu et al., 2019).
pub(super) const ROBERTA: Family = Family {
    model_type: "roberta",
    prefix: "roberta.",
    class: "Roberta",
    tensors: &[
        Rename { bert: "cls.predictions.transform.dense.", family: "lm_head.dense." },
        Rename { bert: "cls.predictions.transform.LayerNorm.", family: "lm_head.layer_norm." },
        Rename { bert: "cls.predictions.decoder.", family: "lm_head.decoder." },
        Rename { bert: "cls.predictions.", family: "lm_head." },
    ],
    positions: Positions::AfterPadding,
    defaults: r#"{"pad_token_id": 1}"#,
    head_act: Some(HiddenAct::Gelu),
    sentence_head: SentenceHead::Own {
        dense: "classifier.dense.",
        norm: None,
        output: "classifier.out_proj.",
        activation: Activation::Tanh,
        has_dropout: true,
    },
    has_next_sentence: false,
    ..BERT
};
