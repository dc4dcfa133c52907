//! Vectors in SQL: `cargo run --release -p kiln-cluster --features engine --example functions [FOLDER]`
//! Without a folder it takes the sample's checkpoint. A model with a head gives `kiln_predict` too: `Model::Predictor`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::path::PathBuf;

use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;
use kiln_backend::{Backend, Flex};
use kiln_cluster::{Model, register};
use kiln_heads::Pooling;
use kiln_kernels::Precision;
use kiln_predict::EmbedConfig;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let folder = match std::env::args().nth(1) {
        Some(folder) => PathBuf::from(folder),
        None => kiln_sample::unpack(temporary.path())?.model,
    };
    let config = EmbedConfig { pooling: Pooling::Mean, normalize: true, precision: Precision::F32 };
    let embedder = config.load(&folder, &Flex::device(0))?;

    let mut session = SessionContext::new();
    register(&mut session, Model::Embedder(Box::new(embedder)))?;
    let reviews = "VALUES ('房间很干净'), ('房间太脏了'), (NULL)";
    let query = format!("SELECT column1 AS text, kiln_embed(column1)[1] AS first FROM ({reviews})");
    let rows = session.sql(&query).await?.collect().await?;
    println!("{}", pretty_format_batches(&rows)?);
    Ok(())
}
