//! Saves, loads and runs a tiny BERT in Hugging Face's layout:
//! `cargo run --release -p kiln-bert --example hidden_states [FOLDER]`. With a folder it reads that checkpoint instead.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::path::PathBuf;

use burn::module::Module;
use kiln_backend::{Backend, Flex};
use kiln_bert::{BertConfig, FloatType, Inputs, Weights, load_bert, parameters, save};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Flex::device(0);
    let temporary = tempfile::tempdir()?;
    let folder = match std::env::args().nth(1) {
        Some(folder) => PathBuf::from(folder),
        None => {
            let config = BertConfig {
                vocab_size: 100,
                hidden_size: 32,
                num_hidden_layers: 2,
                num_attention_heads: 4,
                intermediate_size: 64,
                ..BertConfig::base()
            };
            let fresh = config.init(&device);
            save(&temporary.path().join("model.safetensors"), &parameters(&fresh), FloatType::F16)?;
            kiln_files::write(&temporary.path().join("config.json"), &serde_json::to_vec_pretty(&config)?)?;
            temporary.path().to_owned()
        }
    };

    let config = BertConfig::from_folder(&folder)?;
    let loaded = load_bert(&config, &Weights::from_folder(&folder)?, &device)?;
    println!("{} parameters, unused tensors: {:?}", loaded.module.num_params(), loaded.unused);

    // Two texts; the second has one token of padding.
    let inputs = Inputs::new(&[2, 7, 9, 3, 2, 8, 3, 0], &[1, 1, 1, 1, 1, 1, 1, 0], &[0; 8], [2, 4], &device);
    let hidden_states = loaded.module.forward(inputs);
    println!("hidden_states {:?}", hidden_states.dims());
    if let Some(pooler) = &loaded.module.pooler {
        println!("pooled_output {:?}", pooler.forward(hidden_states).dims());
    }
    Ok(())
}
