//! `kiln data audit`, `kiln data split`, and the reading of a recipe's data.

use std::path::{Path, PathBuf};

use anyhow::bail;
use kiln_dataset::{
    Audit, Format, Item, Lengths, Record, Source, Unplaced, audit as audit_splits, drop_leaks, mend_answers, read,
    read_splits, split as divide, write_splits,
};
use kiln_files::is_same_file;
use kiln_hub::PullConfig;
use kiln_schema::{Example, LabelId, LabelSet, ProblemType, Question, Splits, TaggedText, Task};
use kiln_tokenize::{Encoding, Tokenizer};
use serde_json::json;

use crate::checkpoint::{fetch, fetch_data};
use crate::cli::{AuditArgs, SplitArgs, UsageError};
use crate::console;
use crate::environment::pull_config;
use crate::recipe::{Files, Recipe};

pub fn audit(arguments: &AuditArgs, json: bool) -> anyhow::Result<()> {
    let recipe = Recipe::load(&arguments.recipe, &arguments.set.set)?;
    match (recipe.task, recipe.model.problem_type) {
        (Task::SequenceClassification, ProblemType::SingleLabelClassification) => {
            audit_of::<Example>(&recipe, arguments, json)
        }
        (Task::SequenceClassification, ProblemType::MultiLabelClassification) => {
            audit_of::<Example<Vec<LabelId>>>(&recipe, arguments, json)
        }
        (Task::SequenceClassification, ProblemType::Regression) => audit_of::<Example<f64>>(&recipe, arguments, json),
        (Task::TokenClassification, _) => audit_of::<TaggedText>(&recipe, arguments, json),
        (Task::QuestionAnswering, _) => {
            if !json {
                audit_offsets(&recipe, arguments)?;
            }
            audit_of::<Question>(&recipe, arguments, json)
        }
        (Task::MaskedLm, _) => {
            bail!(UsageError("`kiln data audit` checks labelled data; a corpus has no labels".to_owned()))
        }
    }
}

/// Reports answers with a wrong offset, split by split.
fn audit_offsets(recipe: &Recipe, arguments: &AuditArgs) -> anyhow::Result<()> {
    let config = pull_config(&arguments.hub, &recipe.hub.fallback);
    let (questions, _) = splits::<Question>(recipe, &fetch_data(&recipe.data, &config)?.0)?;
    for (split, questions) in questions.iter() {
        console::result(format_args!("{split}: {}", mend_answers(&mut questions.clone(), Unplaced::Drop)))?;
    }
    Ok(())
}

fn audit_of<T: Record>(recipe: &Recipe, arguments: &AuditArgs, json: bool) -> anyhow::Result<()> {
    let config = pull_config(&arguments.hub, &recipe.hub.fallback);
    let (splits, labels) = splits::<T>(recipe, &fetch_data(&recipe.data, &config)?.0)?;
    let lengths = match tokenizer(recipe, &config) {
        Ok(tokenizer) => Some(count_tokens(&tokenizer, &splits)?),
        Err(error) => {
            console::warn(format_args!("no lengths in tokens, because there is no tokenizer: {error:#}"));
            None
        }
    };
    let audit = audit_splits(&splits, names::<T>(&labels), lengths);
    if json {
        console::json(&audit)?;
    } else {
        console::result(&audit)?;
    }
    report_leaks(&audit, arguments.strict)
}

/// The labels of a data set that has labels.
pub fn names<T: Record>(labels: &LabelSet) -> &[String] {
    if T::LABEL.is_some() { &[] } else { labels.names() }
}

fn tokenizer(recipe: &Recipe, config: &PullConfig) -> anyhow::Result<Tokenizer> {
    let folder = fetch(&recipe.model.source, config)?.folder;
    Ok(Tokenizer::from_folder(&folder)?.with_max_length(recipe.train.max_length)?)
}

/// Lengths without keeping the encodings, a chunk at a time, so that a million rows fit.
fn count_tokens<T: Item>(tokenizer: &Tokenizer, splits: &Splits<Vec<T>>) -> anyhow::Result<Lengths> {
    let mut uncounted = 0;
    let tokens = splits.as_ref().try_map(|_, examples| {
        let mut lengths = Vec::with_capacity(examples.len());
        for chunk in examples.chunks(CHUNK) {
            let encodings = tokenizer.encode_all_counted(chunk.iter().map(Item::texts))?;
            uncounted += count_inexact(&encodings);
            lengths.extend(encodings.iter().map(|encoding| encoding.full_length));
        }
        anyhow::Ok(lengths)
    })?;
    warn_of_inexact(uncounted);
    Ok(Lengths { tokens, max_length: tokenizer.max_length() })
}

/// How many lengths leave a part of the text out.
pub fn count_inexact(encodings: &[Encoding]) -> usize {
    encodings.iter().filter(|encoding| !encoding.full_length_is_exact).count()
}

/// Warns of lengths that leave a part of the text out.
pub fn warn_of_inexact(texts: usize) {
    if texts > 0 {
        console::warn(format_args!(
            "{texts} {} without a place to cut for more than 256 KiB: the rest is not in the lengths in tokens, which are \
             larger than reported",
            if texts == 1 { "text goes on" } else { "texts go on" }
        ));
    }
}

/// Rows tokenized at a time where only their lengths are kept.
const CHUNK: usize = 16_384;

pub fn split(arguments: &SplitArgs, json: bool) -> anyhow::Result<()> {
    let recipe = Recipe::load(&arguments.recipe, &arguments.set.set)?;
    let config = pull_config(&arguments.hub, &recipe.hub.fallback);
    if recipe.task != Task::SequenceClassification
        || recipe.model.problem_type != ProblemType::SingleLabelClassification
    {
        bail!(UsageError(format!("`kiln data split` writes rows with one label each; the task is {}", recipe.task)));
    }
    let (files, _) = fetch_data(&recipe.data, &config)?;
    for split in ["train", "validation", "test"] {
        let output = arguments.out.join(format!("{split}.jsonl"));
        if files.all().into_iter().any(|input| is_same_file(input, &output)) {
            let path = output.display();
            bail!(UsageError(format!(
                "{path} is an input of the recipe and would be overwritten; choose another --out"
            )));
        }
    }
    let (splits, labels) = splits::<Example>(&recipe, &files)?;
    let paths = write_splits(&splits, &labels, &arguments.out)?;
    let written: Vec<(String, usize, &Path)> = paths
        .iter()
        .zip(splits.iter())
        .map(|((split, path), (_, examples))| (split.to_string(), examples.len(), path.as_path()))
        .collect();
    if json {
        let object: serde_json::Map<String, serde_json::Value> = written
            .into_iter()
            .map(|(split, examples, path)| (split, json!({ "examples": examples, "path": path })))
            .collect();
        return console::json(&object);
    }
    for (split, examples, path) in written {
        console::result(format_args!("{split:<10} {examples:>8}  {}", path.display()))?;
    }
    Ok(())
}

/// The items of a recipe's splits, given or made, from its files on disk.
pub fn splits<T: Record>(recipe: &Recipe, files: &Files<PathBuf>) -> anyhow::Result<(Splits<Vec<T>>, LabelSet)> {
    let data = &recipe.data;
    let questions = recipe.task == Task::QuestionAnswering;
    let source = |path: &Path| Source {
        format: data.format.or(questions.then_some(Format::Squad)),
        header: data.header,
        encoding: data.encoding,
        label_separator: data.label_separator,
        ..Source::new(path, data.columns.clone())
    };
    let (splits, labels) = match files {
        Files::Splits(files) => {
            let sources = files.as_ref().map(|_, path| vec![source(path)]);
            read_splits(&sources, data.labels.clone())?
        }
        Files::Divided { files, split } => {
            let sources: Vec<Source> = files.iter().map(|path| source(path)).collect();
            let (items, labels) = read(&sources, data.labels.clone())?;
            (divide(items, split)?, labels)
        }
        Files::Corpus { .. } => unreachable!("a corpus has no labelled rows"),
    };
    if !data.drop_leaks {
        return Ok((splits, labels));
    }
    let (splits, dropped) = drop_leaks(splits);
    console::log(format_args!("{dropped} training examples are also in validation or test and were dropped"));
    Ok((splits, labels))
}

/// Warns of texts that stand on two sides, or fails where that was asked for.
pub fn report_leaks(audit: &Audit, strict: bool) -> anyhow::Result<()> {
    match audit.leaks() {
        0 => {}
        leaks if strict => {
            bail!("{leaks} rows of validation or test are also in an earlier split, and --strict forbids it")
        }
        leaks => console::warn(format_args!(
            "{leaks} rows of validation or test are also in an earlier split, so every score below is too high; \
             `data.drop_leaks = true` removes their copies from the training split"
        )),
    }
    Ok(())
}
