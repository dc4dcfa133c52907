use std::path::{Path, PathBuf};

use anyhow::bail;
use kiln_dataset::{Audit, write_splits};
use kiln_files::is_same_file;
use kiln_hub::PullConfig;
use kiln_schema::{Example, Split};
use kiln_tokenize::Tokenizer;

use crate::environment::{HubOptions, pull_config};
use crate::fetch::{fetch, fetch_data};
use crate::stages::read::{report_leaks, splits};
use crate::{Error, Observer, Recipe, UsageError, tasks};

/// The problems found in a recipe's data.
#[derive(Clone, Debug)]
pub struct Audited {
    /// Duplicates, leaks between the splits, contradictory labels, lengths.
    pub audit: Audit,
    /// For question answering: a text for each split about answers with wrong offsets.
    pub answer_offsets: Vec<(Split, String)>,
}

/// Checks a recipe's data for problems.
///
/// # Errors
/// When the data cannot be fetched or read.
pub fn audit(recipe: &Recipe, hub: &HubOptions, observer: &mut dyn Observer) -> Result<Audited, Error> {
    let config = pull_config(hub, &recipe.hub.fallback);
    let mut run = || {
        let (files, _) = fetch_data(&recipe.data, &config, observer)?;
        let tokenizer = match tokenizer(recipe, &config, observer) {
            Ok(tokenizer) => Some(tokenizer),
            Err(error) => {
                let text = format!("no lengths in tokens, because there is no tokenizer: {error:#}");
                observer.warning(&text);
                None
            }
        };
        tasks::audit_data(recipe, &files, tokenizer.as_ref(), observer)
    };
    run().map_err(Error::from)
}

fn tokenizer(recipe: &Recipe, config: &PullConfig, observer: &mut dyn Observer) -> anyhow::Result<Tokenizer> {
    let folder = fetch(&recipe.model.source, config, observer)?.folder;
    Ok(Tokenizer::from_folder(&folder)?.with_max_length(recipe.train.max_length)?)
}

/// Warns of texts that are in two splits; with `strict`, it is an error.
///
/// # Errors
/// With `strict`, when a text is in two splits.
pub fn check_leaks(audit: &Audit, strict: bool, recipe: &Recipe, observer: &mut dyn Observer) -> Result<(), Error> {
    report_leaks(audit, strict, recipe.data.drop_leaks, observer).map_err(Error::from)
}

/// A split that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenSplit {
    /// Which split it is.
    pub split: Split,
    /// The number of its rows.
    pub examples: usize,
    /// The path of its file, in JSON Lines.
    pub path: PathBuf,
}

/// Writes the splits of a recipe into a folder as JSON Lines. The rows must have one label each.
///
/// # Errors
/// When the rows do not have one label each, the data cannot be fetched or read, or a file cannot be written or is an input
/// of the recipe.
pub fn split(
    recipe: &Recipe,
    out: &Path,
    hub: &HubOptions,
    observer: &mut dyn Observer,
) -> Result<Vec<WrittenSplit>, Error> {
    let mut run = || {
        if !recipe.has_one_label() {
            let kind = recipe.kind();
            bail!(UsageError(format!("`kiln data split` writes rows with one label; the recipe's task is {kind}")));
        }
        let (files, _) = fetch_data(&recipe.data, &pull_config(hub, &recipe.hub.fallback), observer)?;
        for split in ["train", "validation", "test"] {
            let output = out.join(format!("{split}.jsonl"));
            if files.all().into_iter().any(|input| is_same_file(input, &output)) {
                let path = output.display();
                bail!(UsageError(format!(
                    "{path} is an input of the recipe and would be overwritten; choose another --out"
                )));
            }
        }
        let rows = splits::<Example>(recipe, &files, observer)?;
        let paths = write_splits(&rows.items, &rows.labels, out)?;
        let written = paths.iter().zip(rows.items.iter());
        let written =
            written.map(|((split, path), (_, rows))| WrittenSplit { split, examples: rows.len(), path: path.clone() });
        Ok(written.collect())
    };
    run().map_err(Error::from)
}
