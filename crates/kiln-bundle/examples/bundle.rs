//! Makes a bundle, verifies it, and predicts with it: `cargo run --release -p kiln-bundle --example bundle [MODEL OUT]`
//! Without a model it uses the sample checkpoint, which predicts masked tokens.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::path::PathBuf;

use kiln_backend::{Backend, Flex};
use kiln_bundle::{Bundle, SealConfig, verify};
use kiln_kernels::Precision;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let temporary = tempfile::tempdir()?;
    let (model, out) = match (arguments.next(), arguments.next()) {
        (Some(model), Some(out)) => (model, out),
        _ => (kiln_sample::unpack(temporary.path())?.model, temporary.path().join("bundle")),
    };
    let device = Flex::device(0);
    SealConfig { precision: Precision::Int8 }.seal(&model, &out, &device)?;

    let manifest = verify(&out)?;
    for (name, file) in &manifest.files {
        println!("{:>12} bytes  {name}", file.bytes);
    }
    let bundle = Bundle::open(&out, &device)?;
    let vectors = bundle.embedder(manifest.vectors.pooling, true)?.embed(&[("房间很干净", None)])?;
    println!("a vector of {} numbers", vectors.len());
    if let Some(predictor) = bundle.predictor() {
        println!("{}", serde_json::to_string(&predictor.predict(&[("房间很[MASK]净", None)])?)?);
    }
    Ok(())
}
