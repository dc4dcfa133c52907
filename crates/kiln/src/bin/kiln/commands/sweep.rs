//! `kiln sweep`: one training for each combination of values.

use kiln::{RunOptions, Swept};
use kiln_backend::Backend;

use crate::cli::{Cli, SweepArgs};
use crate::console;
use crate::interrupt::watch_signals;
use crate::observer::Console;

/// Number of candidates shown.
const SHOWN: usize = 10;

pub fn run<B: Backend>(arguments: &SweepArgs, cli: &Cli) -> anyhow::Result<()> {
    watch_signals()?;
    let options = RunOptions {
        out: Some(arguments.out.clone()),
        resume: arguments.resume,
        device: cli.device::<B>(),
        hub: arguments.hub.options(),
        ..RunOptions::default()
    };
    let swept = kiln::sweep::<B>(&arguments.recipe, &arguments.set.set, &options, &mut Console::default())?;
    if cli.json { console::json(&swept) } else { print(&swept) }
}

fn print(swept: &Swept) -> anyhow::Result<()> {
    let Swept { path, metric, candidates, seconds } = swept;
    console::result(format_args!("{metric:<10} {:>6} {:>5}  settings", "epochs", "runs"))?;
    for candidate in candidates.iter().take(SHOWN) {
        let score = candidate.score.map_or_else(|| "diverged".to_owned(), |score| format!("{score:.4}"));
        let (epochs, runs) = (candidate.epochs, candidate.runs.len());
        console::result(format_args!("{score:<10} {epochs:>6} {runs:>5}  {}", candidate.settings.join(", ")))?;
    }
    let more = candidates.len().saturating_sub(SHOWN);
    if more > 0 {
        console::result(format_args!("… and {more} more"))?;
    }
    Ok(console::result(format_args!("\n{:.1} s of training; {}", seconds, path.join("sweep.html").display()))?)
}
