//! `kiln predict`: one text, a file of any length, or an interactive prompt.

use std::io::{self, BufRead, IsTerminal, Write};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, bail};
use burn::tensor::Device;
use kiln_backend::Backend;
use kiln_dataset::{Column, Columns, Row, Source, rows};
use kiln_files::FileWriter;
use kiln_predict::{Prediction, Predictor};
use kiln_schema::Task;
use serde::Deserialize;
use serde::de::IntoDeserializer;

use crate::checkpoint::fetch_model;
use crate::cli::{ColumnArgs, FillMaskArgs, PredictArgs, TextArgs, UsageError};
use crate::console;
use crate::recipe::{Recipe, available};

pub fn run<B: Backend>(arguments: &PredictArgs, json: bool, device: &Device) -> anyhow::Result<()> {
    let PredictArgs { model, texts } = arguments;
    let folder = fetch_model(&model.model, &model.hub)?;
    let predictor = load::<B>(&folder, texts, device)?;
    answer_all(&predictor, &folder, texts, json)
}

/// `kiln fill-mask`: the same of a masked language model, with as many tokens a mask as asked for.
pub fn fill_mask<B: Backend>(arguments: &FillMaskArgs, json: bool, device: &Device) -> anyhow::Result<()> {
    let FillMaskArgs { model, hub, texts, top } = arguments;
    let folder = fetch_model(model, hub)?;
    let predictor = load::<B>(&folder, texts, device)?.with_top(*top);
    if predictor.task() != Task::MaskedLm {
        bail!("{}: the model's task is {}, expected masked-lm", folder.display(), predictor.task());
    }
    answer_all(&predictor, &folder, texts, json)
}

fn load<B: Backend>(folder: &Path, arguments: &TextArgs, device: &Device) -> anyhow::Result<Predictor> {
    let precision = available::<B>(arguments.precision.precision)?;
    Ok(Predictor::from_folder(folder, device)?.with_precision(precision))
}

fn answer_all(predictor: &Predictor, folder: &Path, arguments: &TextArgs, json: bool) -> anyhow::Result<()> {
    match (&arguments.text, &arguments.file) {
        (Some(text), _) => answer(predictor, text, arguments.text_pair.as_deref(), json),
        (None, Some(file)) => {
            let source = source(folder, file, &arguments.columns)?;
            match &arguments.out {
                Some(out) => to_file(predictor, &source, out),
                None => to_stdout(predictor, &source),
            }
        }
        (None, None) => prompt(predictor, json),
    }
}

/// How a file is read: as in the recipe beside the model, but for what the command line says.
pub fn source(model: &Path, file: &Path, arguments: &ColumnArgs) -> anyhow::Result<Source> {
    let recipe = model.join("../run.toml");
    let mut source = if recipe.is_file() {
        let data = Recipe::load(&recipe, &[])?.data;
        Source {
            header: data.header,
            encoding: data.encoding,
            format: data.format,
            label_separator: data.label_separator,
            ..Source::new(file, data.columns)
        }
    } else {
        Source::new(file, Columns { text: Column::Index(0), text_pair: None, label: None, flags: vec![] })
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
            console::result(in_words(&prediction, text_pair));
        }
    }
    Ok(())
}

/// A prediction as people read it. On a terminal passages are coloured where they stand, elsewhere put in brackets.
fn in_words(prediction: &Prediction, context: Option<&str>) -> String {
    let listed = |scores: &[(String, f64)]| {
        scores.iter().map(|(label, score)| format!("{label} {score:.4}")).collect::<Vec<_>>().join(", ")
    };
    match prediction {
        Prediction::Label(found) => format!("{}  ({})", found.label, listed(&found.scores)),
        Prediction::Labels(found) => format!("{}  ({})", found.labels.join(", "), listed(&found.scores)),
        Prediction::Number(found) => format!("{:.4}", found.score),
        Prediction::Entities(found) => {
            let spans = found.entities.iter().map(|entity| {
                let label = if entity.label == "_" { "" } else { entity.label.as_str() };
                (entity.start..entity.end, label)
            });
            marked(&found.text, spans)
        }
        Prediction::Tags(prediction) => {
            let tagged = prediction.tags.iter().map(|tag| format!("{}/{}", tag.text, tag.tag));
            tagged.collect::<Vec<_>>().join(" ")
        }
        Prediction::Filled(found) => {
            let told = found.masks.iter().map(|mask| {
                let tokens = mask.tokens.iter().map(|found| format!("{} {:.4}", found.token, found.score));
                tokens.collect::<Vec<_>>().join(", ")
            });
            format!("{}  ({})", found.filled, told.collect::<Vec<_>>().join("; "))
        }
        Prediction::Answer(found) if found.answer.is_empty() => format!("no answer  ({:.4})", found.score),
        Prediction::Answer(found) => {
            // As much of the context as fits a few lines.
            const AROUND: usize = 60;
            let context: Vec<char> = context.unwrap_or_default().chars().collect();
            let (from, to) = (found.start.saturating_sub(AROUND), (found.end + AROUND).min(context.len()));
            let part: String = context[from..to].iter().collect();
            let place = marked(&part, [(found.start - from..found.end - from, "")]);
            format!("{}  ({:.4})\n{place}", found.answer, found.score)
        }
    }
}

/// A text with passages, ranges of characters, made to stand out and their labels behind them.
fn marked<'a>(text: &str, spans: impl IntoIterator<Item = (Range<usize>, &'a str)>) -> String {
    let (open, close) = if io::stdout().is_terminal() { ("\u{1b}[1;33m", "\u{1b}[0m") } else { ("[", "]") };
    let mut marked = String::new();
    let mut chars = text.chars();
    let mut at = 0;
    for (span, label) in spans {
        marked.extend(chars.by_ref().take(span.start - at));
        let passage: String = chars.by_ref().take(span.len()).collect();
        let label = if label.is_empty() { String::new() } else { format!(" {label}") };
        marked.push_str(&format!("{open}{passage}{label}{close}"));
        at = span.end;
    }
    marked.extend(chars);
    marked
}

/// Lines typed in, each answered, until `q` or the end of input. A tab parts the texts of a pair, or a question from its
/// context, which stays until another is given.
fn prompt(predictor: &Predictor, json: bool) -> anyhow::Result<()> {
    let terminal = io::stdin().is_terminal();
    let asks = predictor.task() == Task::QuestionAnswering;
    if terminal {
        let what =
            if asks { "question⇥context, then further questions on it" } else { "a text a line, or text⇥text" };
        console::log(format_args!("{what}; q or Ctrl-D leaves"));
    }
    let mut context: Option<String> = None;
    let mut lines = io::stdin().lock().lines();
    loop {
        if terminal {
            console::ask("> ");
        }
        let Some(line) = lines.next() else { return Ok(()) };
        let line = line.context("standard input cannot be read; is it UTF-8?")?;
        let (text, pair) = match line.split_once('\t') {
            Some((text, pair)) => (text.trim(), Some(pair.trim().to_owned())),
            None => (line.trim(), None),
        };
        match text {
            "" => {}
            "q" => return Ok(()),
            text if asks => {
                context = pair.or(context);
                match &context {
                    Some(context) => answer(predictor, text, Some(context), json)?,
                    None => console::log("there is no context yet: question⇥context"),
                }
            }
            text => answer(predictor, text, pair.as_deref(), json)?,
        }
    }
}

/// Rows read and answered at a time: enough to fill batches of one length, little enough to stay small.
pub const CHUNK: usize = 1024;

fn to_file(predictor: &Predictor, source: &Source, out: &Path) -> anyhow::Result<()> {
    let cannot_write = || format!("{}: cannot be written", out.display());
    let mut writer = FileWriter::create(out).with_context(cannot_write)?;
    let count = each_prediction(predictor, source, |prediction| {
        serde_json::to_writer(&mut writer, prediction)?;
        Ok(writer.write_all(b"\n")?)
    })?;
    writer.finish().with_context(cannot_write)?;
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
    let unlabelled = Source { columns: source.columns.unlabelled(), ..source.clone() };
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
