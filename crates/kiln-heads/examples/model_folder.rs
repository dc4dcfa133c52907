//! Saves and loads a tiny BERT with a head, and runs it: `cargo run --release -p kiln-heads --example model_folder`
#![expect(clippy::print_stdout, reason = "an example prints")]

use kiln_backend::{Backend, Flex};
use kiln_bert::{BertConfig, Inputs};
use kiln_heads::{ClassificationHeadConfig, Network, Pooling, SequenceClassifier, TaskModel, load_model, save_model};
use kiln_schema::{LabelSet, ProblemType};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Flex::device(0);
    let config = BertConfig {
        vocab_size: 100,
        hidden_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 64,
        ..BertConfig::base()
    };
    let head = ClassificationHeadConfig {
        hidden_size: 32,
        hidden_layers: vec![16],
        num_labels: 2,
        dropout: 0.1,
        initializer_range: 0.02,
    };
    let model = SequenceClassifier { bert: config.init(&device), head: head.init(&device), pooling: Pooling::Mean };
    let labels = LabelSet::new(["negative", "positive"])?;
    let network =
        Network::SequenceClassification { model: model.clone(), labels, problem_type: ProblemType::default() };

    let folder = tempfile::tempdir()?;
    save_model(folder.path(), &TaskModel { network, config })?;
    for entry in std::fs::read_dir(folder.path())? {
        println!("{}", entry?.file_name().display());
    }

    let Network::SequenceClassification { model: loaded, .. } = load_model(folder.path(), &device)?.module.network
    else {
        return Err("it was saved as a sequence classifier".into());
    };
    let inputs = || Inputs::new(&[2, 7, 9, 3], &[1; 4], &[0; 4], [1, 4], &device);
    println!("logits before {}", model.forward(inputs()));
    println!("logits after  {}", loaded.forward(inputs()));
    Ok(())
}
