//! `kiln data suspects`: finds labels that are likely wrong.

use std::path::Path;

use kiln::{Recipe, RunOptions, Suspects};
use kiln_backend::Backend;

use crate::cli::{Cli, SuspectsArgs};
use crate::console;
use crate::interrupt::watch_signals;
use crate::observer::Console;

/// Number of suspects shown.
const SHOWN: usize = 5;

pub fn run<B: Backend>(arguments: &SuspectsArgs, cli: &Cli) -> anyhow::Result<()> {
    let recipe = Recipe::load(&arguments.recipe, &arguments.set.set)?;
    watch_signals()?;
    let options = RunOptions {
        out: Some(arguments.out.clone()),
        device: cli.device::<B>(),
        hub: arguments.hub.options(),
        ..RunOptions::default()
    };
    let suspects = kiln::suspects::<B>(&recipe, &options, arguments.folds, &mut Console::default())?;
    if cli.json { console::json(&suspects) } else { print(&suspects) }
}

fn print(found: &Suspects) -> anyhow::Result<()> {
    let Suspects { path, examples, folds, accuracy, suspects } = found;
    console::result(format_args!("{examples} rows in {folds} folds: accuracy on rows not trained on {accuracy:.4}"))?;
    for suspect in suspects.iter().take(SHOWN) {
        let (file, line, text) = (suspect.file.display(), suspect.line, &suspect.text);
        let labels = format!("{} ({:.4}) → {}", suspect.label, suspect.probability, suspect.suggested);
        console::result(format_args!("{file}:{line}: {labels}: {}", console::beginning(text)))?;
    }
    let more = suspects.len().saturating_sub(SHOWN);
    if more > 0 {
        console::result(format_args!("… and {more} more"))?;
    }
    Ok(console::result(summary(suspects.len(), path))?)
}

/// How many labels are likely wrong, and where their rows are.
fn summary(suspects: usize, path: &Path) -> String {
    let path = path.display();
    match suspects {
        0 => format!("no label is likely wrong; {path} has all rows"),
        1 => format!("1 label is likely wrong: the first row of {path}"),
        _ => format!("{suspects} labels are likely wrong: the first rows of {path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_labels() {
        let summaries = [0, 1, 2].map(|suspects| summary(suspects, Path::new("x.tsv")));
        let expected = [
            "no label is likely wrong; x.tsv has all rows",
            "1 label is likely wrong: the first row of x.tsv",
            "2 labels are likely wrong: the first rows of x.tsv",
        ];
        assert_eq!(summaries, expected);
    }
}
