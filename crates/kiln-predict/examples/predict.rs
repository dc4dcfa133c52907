//! A model folder asked two questions: `cargo run --release -p kiln-predict --example predict [FOLDER]`
//! Without a folder it makes an untrained model first, whose answers are chance.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::path::{Path, PathBuf};

use kiln_backend::{Backend, Flex};
use kiln_bert::BertConfig;
use kiln_heads::{ClassificationHeadConfig, Network, Pooling, SequenceClassifier, TaskModel, save_model};
use kiln_predict::Predictor;
use kiln_schema::{LabelSet, ProblemType};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let folder = match std::env::args().nth(1) {
        Some(folder) => PathBuf::from(folder),
        None => {
            untrained(temporary.path())?;
            temporary.path().to_owned()
        }
    };
    let predictor = Predictor::from_folder(&folder, &Flex::device(0))?;
    for prediction in predictor.predict(&[("房间很干净", None), ("屏幕太暗", None)])? {
        println!("{}", serde_json::to_string(&prediction)?);
    }
    Ok(())
}

fn untrained(folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
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
