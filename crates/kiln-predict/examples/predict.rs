//! Predicts for two texts with a model folder: `cargo run --release -p kiln-predict --example predict [FOLDER]`
//! Without a folder, the example creates an untrained model first, and its predictions are random.
#![expect(clippy::print_stdout, reason = "an example prints")]

mod untrained;

use std::path::PathBuf;

use kiln_backend::{Backend, Flex};
use kiln_predict::Predictor;
use untrained::untrained;

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
