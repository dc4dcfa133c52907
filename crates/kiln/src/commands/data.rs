//! `kiln data audit`, `kiln data split`, and the reading of a recipe's data.

use std::path::{Path, PathBuf};

use anyhow::bail;
use kiln_dataset::{
    Audit, Lengths, Source, audit as audit_splits, drop_leaks, read, read_splits, split as divide, write_splits,
};
use kiln_hub::PullConfig;
use kiln_schema::{Example, LabelSet, Splits};
use kiln_tokenize::{Encoding, Tokenizer};
use serde_json::json;

use crate::checkpoint::{fetch, fetch_data};
use crate::cli::{AuditArgs, SplitArgs};
use crate::console;
use crate::environment::pull_config;
use crate::recipe::{Data, Files, Recipe};

pub fn audit(arguments: &AuditArgs, json: bool) -> anyhow::Result<()> {
    let recipe = Recipe::load(&arguments.recipe, &arguments.set.set)?;
    let config = pull_config(&arguments.hub, &recipe.hub.fallback);
    let (splits, labels) = splits(&recipe.data, &fetch_data(&recipe.data, &config)?.0)?;
    let lengths = match tokenizer(&recipe, &config) {
        Ok(tokenizer) => Some(count_tokens(&tokenizer, &splits)?),
        Err(error) => {
            console::warn(format_args!("no lengths in tokens, because there is no tokenizer: {error:#}"));
            None
        }
    };
    let audit = audit_splits(&splits, &labels, lengths);
    if json {
        console::json(&audit)?;
    } else {
        console::result(&audit);
    }
    report_leaks(&audit, arguments.strict)
}

fn tokenizer(recipe: &Recipe, config: &PullConfig) -> anyhow::Result<Tokenizer> {
    let folder = fetch(&recipe.model.source, config)?.folder;
    Ok(Tokenizer::from_folder(&folder)?.with_max_length(recipe.train.max_length)?)
}

/// Lengths without keeping the encodings, a chunk at a time, so that a million rows fit.
fn count_tokens(tokenizer: &Tokenizer, splits: &Splits<Vec<Example>>) -> anyhow::Result<Lengths> {
    let tokens = splits.as_ref().try_map(|_, examples| {
        let mut lengths = Vec::with_capacity(examples.len());
        for chunk in examples.chunks(CHUNK) {
            let encodings = tokenizer.encode_all(chunk.iter().map(Example::texts))?;
            lengths.extend(encodings.iter().map(|encoding| encoding.full_length));
        }
        anyhow::Ok(lengths)
    })?;
    Ok(Lengths { tokens, max_length: tokenizer.max_length() })
}

/// Rows tokenized at a time where only their lengths are kept.
const CHUNK: usize = 16_384;

pub fn split(arguments: &SplitArgs, json: bool) -> anyhow::Result<()> {
    let recipe = Recipe::load(&arguments.recipe, &arguments.set.set)?;
    let config = pull_config(&arguments.hub, &recipe.hub.fallback);
    let (splits, labels) = splits(&recipe.data, &fetch_data(&recipe.data, &config)?.0)?;
    std::fs::create_dir_all(&arguments.out)?;
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
        console::result(format_args!("{split:<10} {examples:>8}  {}", path.display()));
    }
    Ok(())
}

/// The examples of a recipe's splits, given or made, from its files on disk.
pub fn splits(data: &Data, files: &Files<PathBuf>) -> anyhow::Result<(Splits<Vec<Example>>, LabelSet)> {
    let source = |path: &Path| Source {
        format: data.format,
        header: data.header,
        encoding: data.encoding,
        ..Source::new(path, data.columns.clone())
    };
    let (splits, labels) = match files {
        Files::Splits(files) => {
            let sources = files.as_ref().map(|_, path| vec![source(path)]);
            read_splits(&sources, data.labels.clone())?
        }
        Files::Divided { files, split } => {
            let sources: Vec<Source> = files.iter().map(|path| source(path)).collect();
            let (examples, labels) = read(&sources, data.labels.clone())?;
            (divide(examples, split)?, labels)
        }
    };
    if !data.drop_leaks {
        return Ok((splits, labels));
    }
    let (splits, dropped) = drop_leaks(splits);
    console::log(format_args!("{dropped} examples of train stand in validation or test too and were dropped"));
    Ok((splits, labels))
}

/// Each split's examples, in their order, as encodings.
pub fn encode(tokenizer: &Tokenizer, splits: &Splits<Vec<Example>>) -> anyhow::Result<Splits<Vec<Encoding>>> {
    splits.as_ref().try_map(|_, examples| Ok(tokenizer.encode_all(examples.iter().map(Example::texts))?))
}

/// What the audit counts of the encodings.
pub fn token_lengths(encodings: &Splits<Vec<Encoding>>, max_length: usize) -> Lengths {
    let tokens = encodings.as_ref().map(|_, encodings| encodings.iter().map(|encoding| encoding.full_length).collect());
    Lengths { tokens, max_length }
}

/// Warns of texts that stand on two sides, or fails where that was asked for.
pub fn report_leaks(audit: &Audit, strict: bool) -> anyhow::Result<()> {
    match audit.leaks() {
        0 => {}
        leaks if strict => {
            bail!("{leaks} rows of validation or test stand in an earlier split too, and --strict forbids it")
        }
        leaks => console::warn(format_args!(
            "{leaks} rows of validation or test stand in an earlier split too, which flatters every figure below; \
             `data.drop_leaks = true` takes their copies out of train"
        )),
    }
    Ok(())
}
