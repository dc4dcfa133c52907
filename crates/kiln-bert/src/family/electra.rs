use kiln_kernels::Activation;

use super::{BERT, Family, Projection, SentenceHead};

/// ELECTRA's discriminator (Clark et al., 2020). It is not pre-trained to predict words, so it has no masked language
/// modeling head.
pub(super) const ELECTRA: Family = Family {
    model_type: "electra",
    prefix: "electra.",
    class: "Electra",
    projection: Projection::OtherWidth,
    defaults: r#"{"embedding_size": 128}"#,
    sentence_head: SentenceHead::Own {
        dense: "classifier.dense.",
        norm: None,
        output: "classifier.out_proj.",
        activation: Activation::Gelu,
        has_dropout: true,
    },
    has_masked_lm: false,
    has_next_sentence: false,
    ..BERT
};
