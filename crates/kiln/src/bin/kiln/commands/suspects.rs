//! `kiln data suspects`: finds labels that are likely wrong.

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
    Ok(console::result(format_args!(
        "{} labels are likely wrong: the first rows of {}",
        suspects.len(),
        path.display()
    ))?)
}
