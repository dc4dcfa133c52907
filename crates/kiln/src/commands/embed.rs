//! `kiln embed`: texts to vectors, or the cosine of two.

use anyhow::bail;
use burn::tensor::Device;
use kiln_backend::Backend;
use kiln_dataset::{Row, Source, VectorWriter, rows};
use kiln_predict::{EmbedConfig, Embedder, cosine};
use serde_json::json;

use crate::checkpoint::fetch_model;
use crate::cli::{EmbedArgs, UsageError};
use crate::commands::predict::{CHUNK, source};
use crate::console;
use crate::recipe::available;

pub fn run<B: Backend>(arguments: &EmbedArgs, json: bool, device: &Device) -> anyhow::Result<()> {
    let config = EmbedConfig {
        pooling: arguments.pooling.into(),
        normalize: arguments.normalize,
        precision: available::<B>(arguments.precision.precision)?,
    };
    let folder = fetch_model(&arguments.model.model, &arguments.model.hub)?;
    let embedder = config.load(&folder, device)?;
    match (&arguments.text, &arguments.text_pair, &arguments.file, &arguments.out) {
        (Some(text), Some(other), ..) => {
            let vectors = embedder.embed(&[(text, None), (other, None)])?;
            let (a, b) = vectors.split_at(embedder.width());
            let cosine = cosine(a, b);
            if json {
                return console::json(&json!({ "cosine": cosine }));
            }
            console::result(format_args!("{cosine:.4}"));
            Ok(())
        }
        (Some(text), None, ..) => {
            let embedding = embedder.embed(&[(text, None)])?;
            console::json(&json!({ "text": text, "embedding": embedding }))
        }
        (None, _, Some(file), Some(out)) => {
            let source = source(&folder, file, &arguments.columns)?;
            let mut writer = VectorWriter::create(out, embedder.width())?;
            write(&embedder, &source, &mut writer)?;
            let count = writer.finish()?;
            console::log(format_args!("{count} vectors of {} → {}", embedder.width(), out.display()));
            Ok(())
        }
        _ => bail!(UsageError("expected --text, with or without --text-pair, or --file with --out".to_owned())),
    }
}

fn write(embedder: &Embedder, source: &Source, writer: &mut VectorWriter) -> anyhow::Result<()> {
    let unlabelled = Source { columns: source.columns.unlabelled(), ..source.clone() };
    let mut rows = rows(&unlabelled)?;
    let mut any = false;
    loop {
        let chunk: Vec<Row> = rows.by_ref().take(CHUNK).collect::<Result<_, _>>()?;
        if chunk.is_empty() {
            break;
        }
        any = true;
        let texts: Vec<(&str, Option<&str>)> =
            chunk.iter().map(|row| (row.text.as_str(), row.text_pair.as_deref())).collect();
        let names: Vec<&str> = texts.iter().map(|(text, _)| *text).collect();
        writer.write(&names, &embedder.embed(&texts)?)?;
    }
    if !any {
        bail!("{}: there are no rows", source.path.display());
    }
    Ok(())
}
