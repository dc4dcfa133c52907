use super::{Family, Positions, Projection, SentenceHead};

/// BERT (Devlin et al., 2019), and the many checkpoints with other names and the same architecture: Chinese RoBERTa-wwm,
/// MacBERT, BGE, E5, GTE, MiniLM.
pub(super) const BERT: Family = Family {
    model_type: "bert",
    prefix: "bert.",
    class: "Bert",
    config_keys: &[],
    tensors: &[],
    positions: Positions::Zero,
    has_segments: true,
    has_task_types: false,
    projection: Projection::Never,
    shares_layers: false,
    defaults: "{}",
    fixed: "{}",
    head_act: None,
    sentence_head: SentenceHead::Pooler,
    has_token_head: false,
    answer_output: "qa_outputs.",
    has_pre_norm: false,
    has_masked_lm: true,
    has_next_sentence: true,
};
