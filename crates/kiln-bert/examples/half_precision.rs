//! Converts a checkpoint to half precision, with its config:
//! `cargo run --release -p kiln-bert --example half_precision FROM TO`. Without folders it converts a tiny fresh checkpoint.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::path::PathBuf;

use kiln_backend::{Backend, Flex};
use kiln_bert::{BertConfig, FloatType, NamedParameter, Weights, parameters, save};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let mut folders = std::env::args().skip(1).map(PathBuf::from);
    let (from, to) = match (folders.next(), folders.next()) {
        (Some(from), Some(to)) => (from, to),
        _ => {
            let tiny = BertConfig { vocab_size: 50, hidden_size: 32, num_hidden_layers: 1, ..BertConfig::base() };
            let tiny = BertConfig { num_attention_heads: 4, intermediate_size: 64, ..tiny };
            let path = temporary.path().join("model.safetensors");
            save(&path, &parameters(&tiny.init(&Flex::device(0))), FloatType::F32)?;
            kiln_files::write(&temporary.path().join("config.json"), &serde_json::to_vec_pretty(&tiny)?)?;
            (temporary.path().to_owned(), temporary.path().join("half"))
        }
    };
    let mut config = BertConfig::from_folder(&from)?;
    config.extra.insert("dtype".to_owned(), "float16".into());
    let weights = Weights::from_folder(&from)?;
    let mut halved = Vec::new();
    for name in weights.names() {
        let shape = weights.shape(name).unwrap_or_default().to_vec();
        if let Some(values) = weights.read(name)? {
            halved.push(NamedParameter { name: name.to_owned(), shape, values });
        }
    }
    std::fs::create_dir_all(&to)?;
    save(&to.join("model.safetensors"), &halved, FloatType::F16)?;
    kiln_files::write(&to.join("config.json"), &serde_json::to_vec_pretty(&config)?)?;
    let numbers: usize = halved.iter().map(|parameter| parameter.values.len()).sum();
    println!("{}: {numbers} numbers in {} tensors", to.display(), halved.len());
    Ok(())
}
