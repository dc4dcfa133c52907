//! Prints the raw logits of a model: `cargo run --release -p kiln-predict --example logits [FOLDER TEXTS]`
//! TEXTS is a file with one text per line, or two texts separated by a tab. Each output line is a JSON object with the keys
//! of transformers' outputs. Without arguments, the example creates an untrained model first.
#![expect(clippy::print_stdout, reason = "an example prints")]

mod outputs;
mod untrained;

use std::path::PathBuf;

use kiln_backend::{Backend, Flex};
use kiln_predict::Predictor;
use outputs::outputs;
use serde_json::Value;
use untrained::untrained;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let (folder, texts) = match (arguments.next(), arguments.next()) {
        (Some(folder), Some(texts)) => (folder, std::fs::read_to_string(texts)?),
        _ => {
            untrained(temporary.path())?;
            (temporary.path().to_owned(), "房间很干净\n房间\t屏幕\n".to_owned())
        }
    };
    let device = Flex::device(0);
    let predictor = Predictor::from_folder(&folder, &device)?;
    for line in texts.lines() {
        let (text, pair) = match line.split_once('\t') {
            Some((text, pair)) => (text, Some(pair)),
            None => (line, None),
        };
        let encoding = predictor.tokenizer().encode(text, pair)?;
        println!("{}", Value::Object(outputs(&predictor, encoding, &device)));
    }
    Ok(())
}
