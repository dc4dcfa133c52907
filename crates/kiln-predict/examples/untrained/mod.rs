//! Creates a model folder for examples that run without one.

use std::path::Path;

use kiln_backend::{Backend, Flex};
use kiln_bert::BertConfig;
use kiln_heads::{ClassificationHeadConfig, Network, Pooling, SequenceClassifier, TaskModel, save_model};
use kiln_schema::{LabelSet, ProblemType};

/// Writes a small untrained classifier.
pub fn untrained(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let vocabulary =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "房", "间", "很", "干", "净", "屏", "幕", "太", "暗"];
    std::fs::write(folder.join("vocab.txt"), vocabulary.join("\n"))?;
    let device = Flex::device(0);
    let config = BertConfig {
        vocab_size: vocabulary.len(),
        hidden_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 64,
        ..BertConfig::base()
    };
    let head = ClassificationHeadConfig {
        hidden_size: 32,
        hidden_layers: vec![],
        num_labels: 2,
        dropout: 0.1,
        initializer_range: 0.02,
    };
    let model = SequenceClassifier { bert: config.init(&device), head: head.init(&device), pooling: Pooling::Cls };
    let labels = LabelSet::new(["negative", "positive"])?;
    let network = Network::SequenceClassification { model, labels, problem_type: ProblemType::default() };
    Ok(save_model(folder, &TaskModel { network, config })?)
}
