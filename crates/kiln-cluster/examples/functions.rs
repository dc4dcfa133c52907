//! Uses a model in SQL: `cargo run --release -p kiln-cluster --features engine --example functions [FOLDER]`
//! Without a folder it uses the sample checkpoint and only computes vectors.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::path::PathBuf;

use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;
use kiln_backend::{Backend, Flex};
use kiln_cluster::{Model, register};
use kiln_heads::Pooling;
use kiln_kernels::Precision;
use kiln_predict::{EmbedConfig, Predictor};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (temporary, device) = (tempfile::tempdir()?, Flex::device(0));
    let given = std::env::args().nth(1).map(PathBuf::from);
    let folder = match &given {
        Some(folder) => folder.clone(),
        None => kiln_sample::unpack(temporary.path())?.model,
    };
    let config = EmbedConfig { pooling: Pooling::Mean, normalize: true, precision: Precision::F32 };
    let embedder = config.load(&folder, &device)?;

    let mut session = SessionContext::new();
    register(&mut session, Model::Embedder(Box::new(embedder)))?;
    let mut columns = "column1 AS text, kiln_embed(column1)[1] AS first".to_owned();
    if let Some(folder) = given {
        let predictor = Predictor::from_folder(&folder, &device)?;
        register(&mut session, Model::Predictor(Box::new(predictor)))?;
        columns += ", kiln_predict(column1) AS answer";
    }
    let query = format!("SELECT {columns} FROM (VALUES ('房间很干净'), ('房间太脏了'), (NULL))");
    let rows = session.sql(&query).await?.collect().await?;
    println!("{}", pretty_format_batches(&rows)?);
    Ok(())
}
