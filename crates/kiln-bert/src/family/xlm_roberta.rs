use super::Family;
use super::roberta::ROBERTA;

/// XLM-RoBERTa (Conneau et al., 2020): RoBERTa for a hundred languages, with a SentencePiece vocabulary.
pub(super) const XLM_ROBERTA: Family = Family { model_type: "xlm-roberta", class: "XLMRoberta", ..ROBERTA };
