//! `kiln embed`: vectors of texts, or the cosine similarity of two texts.

use anyhow::bail;
use burn::tensor::Device;
use kiln::fetch::fetch_model;
use kiln::{ModelFolders, UsageError, open_embedder, stored_vectors};
use kiln_backend::Backend;
use kiln_dataset::VectorWriter;
use kiln_predict::cosine;
use serde_json::json;

use crate::cli::EmbedArgs;
use crate::commands::predict::CHUNK;
use crate::console;
use crate::input::{Input, refuse_to_overwrite};
use crate::observer::Console;

pub fn run<B: Backend>(arguments: &EmbedArgs, json: bool, device: &Device) -> anyhow::Result<()> {
    if let (Some(file), Some(out)) = (&arguments.file, &arguments.out) {
        refuse_to_overwrite(out, std::slice::from_ref(file))?;
    }
    let folder = fetch_model(&arguments.model.model, &arguments.model.hub.options(), &mut Console::default())?;
    let stored = stored_vectors(&folder, arguments.pooling.map(Into::into))?;
    let vectors = (stored.pooling, stored.normalize || arguments.normalize);
    let adapter = arguments.model.adapter.folder();
    let model = ModelFolders { model: &folder, adapter: adapter.as_deref() };
    let embedder = open_embedder::<B>(model, arguments.precision.precision, vectors, device)?;
    match (&arguments.text, &arguments.text_pair, &arguments.file, &arguments.out) {
        (Some(text), Some(other), ..) => {
            let vectors = embedder.embed(&[(text, None), (other, None)])?;
            let (a, b) = vectors.split_at(embedder.width());
            let cosine = cosine(a, b);
            if json {
                return console::json(&json!({ "cosine": cosine }));
            }
            Ok(console::result(format_args!("{cosine:.4}"))?)
        }
        (Some(text), None, ..) => {
            let embedding = embedder.embed(&[(text, None)])?;
            console::json(&json!({ "text": text, "embedding": embedding }))
        }
        (None, _, Some(file), Some(out)) => {
            let input = Input::texts(&folder, file, &arguments.columns, None)?;
            let mut writer = VectorWriter::create(out, embedder.width())?;
            let count = input.for_each_chunk(CHUNK, |texts| {
                let names: Vec<&str> = texts.iter().map(|(text, _)| *text).collect();
                Ok(writer.write(&names, &embedder.embed(texts)?)?)
            })?;
            writer.finish()?;
            let vectors = console::counted(count, "vector");
            console::log(format_args!("{vectors} of {} → {}", embedder.width(), out.display()));
            Ok(())
        }
        _ => bail!(UsageError("expected --text, with or without --text-pair, or --file with --out".to_owned())),
    }
}
