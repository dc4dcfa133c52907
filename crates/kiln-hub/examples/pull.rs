//! Pulls a source to a folder: `cargo run --release -p kiln-hub --example pull [SOURCE]`
//!
//! Without an argument it uses a temporary folder; `hf:owner/name` pulls from Hugging Face.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;
use std::fs;

use kiln_hub::{Progress, PullConfig, Source, pull};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("config.json"), r#"{"model_type": "bert"}"#)?;
    let made = format!("dir:{}", folder.path().display());

    let source: Source = std::env::args().nth(1).unwrap_or(made).parse()?;
    println!("source  {source}");
    let Source::Location(location) = source else {
        println!("        is compiled into the program: there is nothing to pull");
        return Ok(());
    };
    let snapshot = pull(&location, &PullConfig::default(), &mut |progress| match progress {
        Progress::Downloading { file, received, size, .. } => println!("{received:>12} of {size} bytes of {file}"),
        other => println!("{other:?}"),
    })?;
    println!("folder  {}\ncommit  {:?}", snapshot.folder.display(), snapshot.revision);

    for text in ["hf:google-bert/bert-base-chinese@main", "modelscope:../secrets", "dir:/x/no-such-model"] {
        match text.parse::<Source>() {
            Ok(source) => println!("{text}: {source:?}"),
            Err(error) => println!("{text}: {error}"),
        }
    }
    Ok(())
}
