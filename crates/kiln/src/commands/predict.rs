//! `kiln predict`: one text, a file of any length, or an interactive prompt.

use std::io::{self, BufRead, BufWriter, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, bail};
use burn::tensor::Device;
use kiln_backend::Backend;
use kiln_bert::temporary_beside;
use kiln_dataset::{Column, Columns, Row, Source, rows};
use kiln_predict::{Prediction, Predictor};
use serde::Deserialize;
use serde::de::IntoDeserializer;

use crate::cli::{ColumnArgs, PredictArgs, UsageError};
use crate::console;
use crate::recipe::{Recipe, available};

pub fn run<B: Backend>(arguments: &PredictArgs, json: bool, device: &Device) -> anyhow::Result<()> {
    let precision = available::<B>(arguments.precision.precision)?;
    let predictor = Predictor::from_folder(&arguments.model, device)?.with_precision(precision);
    match (&arguments.text, &arguments.file) {
        (Some(text), _) => answer(&predictor, text, arguments.text_pair.as_deref(), json),
        (None, Some(file)) => {
            let source = source(&arguments.model, file, &arguments.columns)?;
            match &arguments.out {
                Some(out) => to_file(&predictor, &source, out),
                None => to_stdout(&predictor, &source),
            }
        }
        (None, None) => prompt(&predictor, json),
    }
}

/// How a file is read: as in the recipe beside the model, but for what the command line says.
pub fn source(model: &Path, file: &Path, arguments: &ColumnArgs) -> anyhow::Result<Source> {
    let recipe = model.join("../run.toml");
    let mut source = if recipe.is_file() {
        let data = Recipe::load(&recipe, &[])?.data;
        Source { header: data.header, encoding: data.encoding, format: data.format, ..Source::new(file, data.columns) }
    } else {
        Source::new(file, Columns { text: Column::Index(0), text_pair: None, label: None })
    };
    // The recipe's format is its files'; this file's ending speaks for itself.
    if kiln_dataset::Format::from_path(file).is_ok() {
        source.format = None;
    }
    if let Some(format) = &arguments.format {
        let format = kiln_dataset::Format::deserialize(format.as_str().into_deserializer())
            .map_err(|error: serde::de::value::Error| UsageError(format!("--format {format}: {error}")))?;
        source.format = Some(format);
    }
    source.header |= arguments.header;
    if let Some(text) = &arguments.text_column {
        source.columns.text = text.clone();
    }
    if arguments.text_pair_column.is_some() {
        source.columns.text_pair = arguments.text_pair_column.clone();
    }
    Ok(source)
}

fn answer(predictor: &Predictor, text: &str, text_pair: Option<&str>, json: bool) -> anyhow::Result<()> {
    for prediction in predictor.predict(&[(text, text_pair)])? {
        if json {
            console::json(&prediction)?;
        } else {
            console::result(in_words(&prediction));
        }
    }
    Ok(())
}

fn in_words(prediction: &Prediction) -> String {
    let scores: Vec<String> = prediction.scores.iter().map(|(label, score)| format!("{label} {score:.4}")).collect();
    format!("{}  ({})", prediction.label, scores.join(", "))
}

/// Lines typed in, each answered, until `q` or the end of input.
fn prompt(predictor: &Predictor, json: bool) -> anyhow::Result<()> {
    let terminal = io::stdin().is_terminal();
    if terminal {
        console::log("a text a line; q or Ctrl-D leaves");
    }
    let mut lines = io::stdin().lock().lines();
    loop {
        if terminal {
            console::ask("> ");
        }
        let Some(line) = lines.next() else { return Ok(()) };
        let line = line.context("standard input cannot be read; is it UTF-8?")?;
        match line.trim() {
            "" => {}
            "q" => return Ok(()),
            text => answer(predictor, text, None, json)?,
        }
    }
}

/// Rows read and answered at a time: enough to fill batches of one length, little enough to stay small.
const CHUNK: usize = 1024;

fn to_file(predictor: &Predictor, source: &Source, out: &Path) -> anyhow::Result<()> {
    let cannot_write = || format!("{}: cannot be written", out.display());
    let mut file = temporary_beside(out).with_context(cannot_write)?;
    let mut writer = BufWriter::new(&mut file);
    let count = each_prediction(predictor, source, |prediction| {
        serde_json::to_writer(&mut writer, prediction)?;
        Ok(writer.write_all(b"\n")?)
    })?;
    writer.flush().with_context(cannot_write)?;
    drop(writer);
    file.as_file().sync_all().with_context(cannot_write)?;
    file.persist(out).with_context(cannot_write)?;
    console::log(format_args!("{count} rows → {}", out.display()));
    Ok(())
}

fn to_stdout(predictor: &Predictor, source: &Source) -> anyhow::Result<()> {
    each_prediction(predictor, source, console::json)?;
    Ok(())
}

fn each_prediction(
    predictor: &Predictor,
    source: &Source,
    mut write: impl FnMut(&Prediction) -> anyhow::Result<()>,
) -> anyhow::Result<usize> {
    let unlabelled = Source { columns: Columns { label: None, ..source.columns.clone() }, ..source.clone() };
    let mut rows = rows(&unlabelled)?;
    let mut count = 0;
    loop {
        let chunk: Vec<Row> = rows.by_ref().take(CHUNK).collect::<Result<_, _>>()?;
        if chunk.is_empty() {
            break;
        }
        let texts: Vec<(&str, Option<&str>)> =
            chunk.iter().map(|row| (row.text.as_str(), row.text_pair.as_deref())).collect();
        for prediction in predictor.predict(&texts)? {
            write(&prediction)?;
            count += 1;
        }
    }
    if count == 0 {
        bail!("{}: there are no rows", source.path.display());
    }
    Ok(count)
}
