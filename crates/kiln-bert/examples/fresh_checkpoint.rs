//! Fresh weights for a config, in Hugging Face's layout and half precision:
//! `cargo run --release -p kiln-bert --example fresh_checkpoint FOLDER [SEED]`, where the folder holds a `config.json`.
//! Without a folder it does so for a tiny config in a temporary one.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::path::PathBuf;

use burn::module::Module;
use kiln_backend::{Backend, Flex};
use kiln_bert::{BertConfig, FloatType, initialize, parameters, save, write_atomically};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let temporary = tempfile::tempdir()?;
    let folder = match arguments.next() {
        Some(folder) => PathBuf::from(folder),
        None => {
            let tiny = BertConfig { vocab_size: 50, hidden_size: 32, num_hidden_layers: 1, ..BertConfig::base() };
            let tiny = BertConfig { num_attention_heads: 4, intermediate_size: 64, ..tiny };
            write_atomically(&temporary.path().join("config.json"), &serde_json::to_vec_pretty(&tiny)?)?;
            temporary.path().to_owned()
        }
    };
    let seed = arguments.next().map_or(Ok(0), |seed| seed.parse())?;

    let device = Flex::device(0);
    device.seed(seed);
    let mut bert = BertConfig::from_folder(&folder)?.init(&device);
    // A pooler is of use only after next-sentence prediction has trained it.
    bert.pooler = None;
    initialize(&bert);
    let path = folder.join("model.safetensors");
    save(&path, &parameters(&bert), FloatType::F16)?;
    println!("{}: {} parameters, {} bytes", path.display(), bert.num_params(), std::fs::metadata(&path)?.len());
    Ok(())
}
