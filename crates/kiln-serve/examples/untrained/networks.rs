use kiln_backend::{Backend, Flex};
use kiln_bert::BertConfig;
use kiln_heads::{
    ClassificationHeadConfig, MaskedLm, Network, Pooling, PreTrainingHeads, QuestionAnswerer, SequenceClassifier,
    TokenClassifier, Units,
};
use kiln_schema::{LabelSet, ProblemType, TagScheme};

use super::Result;

/// A network for each task, with its name.
pub fn networks(config: &BertConfig) -> Result<[(&'static str, Network); 6]> {
    let device = Flex::device(0);
    let head = |num_labels| {
        let (hidden_size, hidden_layers, initializer_range) = (config.hidden_size, vec![], config.initializer_range);
        ClassificationHeadConfig { hidden_size, hidden_layers, num_labels, dropout: 0.0, initializer_range }
            .init(&device)
    };
    let sequence = |names: &[&str], problem_type| -> Result<Network> {
        let model = SequenceClassifier { bert: config.init(&device), head: head(names.len()), pooling: Pooling::Cls };
        Ok(Network::SequenceClassification { model, labels: LabelSet::new(names.iter().copied())?, problem_type })
    };
    let tagger = TokenClassifier { bert: config.init(&device), head: head(5), crf: None };
    let labels = LabelSet::new(["O", "B-ORG", "I-ORG", "B-PER", "I-PER"])?;
    let (units, tag_scheme) = (Units::Characters, TagScheme::Entities);
    let masked = MaskedLm { bert: config.init(&device), cls: PreTrainingHeads::new(config, false, &device) };
    Ok([
        ("masks", Network::MaskedLm { model: masked }),
        ("answers", Network::QuestionAnswering { model: QuestionAnswerer::new(config.init(&device), config, &device) }),
        ("names", Network::TokenClassification { model: tagger, labels, units, tag_scheme }),
        ("ranks", sequence(&["score"], ProblemType::Regression)?),
        ("topics", sequence(&["room", "food", "place"], ProblemType::MultiLabelClassification)?),
        ("reviews", sequence(&["negative", "positive"], ProblemType::SingleLabelClassification)?),
    ])
}
