use super::Family;
use super::roberta::ROBERTA;

/// CamemBERT (Martin et al., 2020): RoBERTa for French, with a SentencePiece vocabulary.
pub(super) const CAMEMBERT: Family = Family { model_type: "camembert", class: "Camembert", ..ROBERTA };
