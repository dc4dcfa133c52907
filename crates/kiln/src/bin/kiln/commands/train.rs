//! `kiln train`, `kiln pretrain` and `kiln pipeline`: all stages of a recipe; `pipeline` without one runs that of the
//! embedded sample.

use kiln::fetch::sample_folder;
use kiln::{Recipe, RunOptions, UsageError};
use kiln_backend::Backend;
use kiln_schema::Task;

use super::outcome;
use crate::cli::{Cli, PipelineArgs, RunArgs, SampleTask, TrainArgs};
use crate::interrupt::watch_signals;
use crate::observer::Console;
#[cfg(feature = "serve")]
use crate::watch::Watch;

pub fn train<B: Backend>(arguments: &TrainArgs, cli: &Cli) -> anyhow::Result<()> {
    let recipe = Recipe::load(&arguments.recipe, &arguments.run.set.set)?;
    run::<B>(
        &recipe,
        options(&arguments.run, cli).named_after(&arguments.recipe),
        cli.json,
        console(&arguments.run, &recipe)?,
    )
}

pub fn pipeline<B: Backend>(arguments: &PipelineArgs, cli: &Cli) -> anyhow::Result<()> {
    let options = options(&arguments.run, cli);
    let (path, options) = match &arguments.recipe {
        Some(path) => (path.clone(), options.named_after(path)),
        None => {
            let sample = kiln_sample::unpack(&sample_folder())?;
            let (recipe, name) = match arguments.task {
                SampleTask::SequenceClassification => (sample.recipe, "sample"),
                SampleTask::TokenClassification => (sample.tags, "sample-tags"),
            };
            (recipe, RunOptions { name: name.to_owned(), ..options })
        }
    };
    let recipe = Recipe::load(&path, &arguments.run.set.set)?;
    run::<B>(&recipe, options, cli.json, console(&arguments.run, &recipe)?)
}

/// A training whose recipe is one of raw text.
pub fn pretrain<B: Backend>(arguments: &TrainArgs, cli: &Cli) -> anyhow::Result<()> {
    let task = Recipe::load(&arguments.recipe, &arguments.run.set.set)?.task;
    if task != Task::MaskedLm {
        let message = format!("{}: the task is `{task}`, expected `masked-lm`", arguments.recipe.display());
        return Err(UsageError(message).into());
    }
    train::<B>(arguments, cli)
}

fn options(arguments: &RunArgs, cli: &Cli) -> RunOptions {
    RunOptions {
        out: arguments.out.clone(),
        resume: arguments.resume,
        strict: arguments.strict,
        device: cli.device,
        hub: arguments.hub.options(),
        ..RunOptions::default()
    }
}

/// Standard error, and a page where one is asked for.
#[cfg(feature = "serve")]
fn console(arguments: &RunArgs, recipe: &Recipe) -> anyhow::Result<Console> {
    let title = format!("{} on {}", recipe.task, recipe.model.source);
    Ok(Console::watched(arguments.watch.then(|| Watch::start(title)).transpose()?))
}

#[cfg(not(feature = "serve"))]
fn console(_: &RunArgs, _: &Recipe) -> anyhow::Result<Console> {
    Ok(Console::default())
}

fn run<B: Backend>(recipe: &Recipe, options: RunOptions, json: bool, mut console: Console) -> anyhow::Result<()> {
    watch_signals()?;
    let trained = kiln::train::<B>(recipe, &options, &mut console)?;
    drop(console);
    outcome::print(&trained, json)
}
