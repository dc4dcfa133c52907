//! `kiln train`, `kiln pretrain` and `kiln pipeline`: run all stages of a recipe. Without a recipe, `pipeline` runs that of
//! the embedded sample.

use anyhow::bail;
use kiln::fetch::sample_folder;
use kiln::{Recipe, RunOptions, UsageError};
use kiln_backend::Backend;
use kiln_schema::Task;

use super::outcome;
use crate::cli::{Cli, PipelineArgs, RunArgs, SampleTask, TrainArgs};
use crate::dashboard::Dashboard;
use crate::interrupt::watch_signals;
use crate::observer::{Console, Silent};
use crate::ranks::Ranks;
#[cfg(feature = "serve")]
use crate::watch::Watch;

pub fn train<B: Backend>(arguments: &TrainArgs, cli: &Cli) -> anyhow::Result<()> {
    run::<B>(&arguments.run, cli, || loaded(arguments, cli.device::<B>()))
}

/// Runs a training whose recipe must be for raw text.
pub fn pretrain<B: Backend>(arguments: &TrainArgs, cli: &Cli) -> anyhow::Result<()> {
    run::<B>(&arguments.run, cli, || {
        let (recipe, options) = loaded(arguments, cli.device::<B>())?;
        if recipe.task != Task::MaskedLm {
            let (path, task) = (arguments.recipe.display(), recipe.task);
            bail!(UsageError(format!("{path}: the task is `{task}`, expected `masked-lm`")));
        }
        Ok((recipe, options))
    })
}

pub fn pipeline<B: Backend>(arguments: &PipelineArgs, cli: &Cli) -> anyhow::Result<()> {
    run::<B>(&arguments.run, cli, || loaded_or_sample(arguments, cli.device::<B>()))
}

fn loaded(arguments: &TrainArgs, device: usize) -> anyhow::Result<(Recipe, RunOptions)> {
    let recipe = Recipe::load(&arguments.recipe, &arguments.run.set.set)?;
    Ok((recipe, options(&arguments.run, device).named_after(&arguments.recipe)))
}

fn loaded_or_sample(arguments: &PipelineArgs, device: usize) -> anyhow::Result<(Recipe, RunOptions)> {
    let options = options(&arguments.run, device);
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
    Ok((Recipe::load(&path, &arguments.run.set.set)?, options))
}

fn options(arguments: &RunArgs, device: usize) -> RunOptions {
    RunOptions {
        out: arguments.out.clone(),
        resume: arguments.resume,
        strict: arguments.strict,
        device,
        hub: arguments.hub.options(),
        ..RunOptions::default()
    }
}

/// The observer on standard error, with a dashboard and a web page if requested.
fn console(arguments: &RunArgs, recipe: &Recipe) -> anyhow::Result<Console> {
    let dashboard = arguments.dashboard.then(Dashboard::new).transpose()?;
    with_page(Console::default().with_dashboard(dashboard), arguments, recipe)
}

#[cfg(feature = "serve")]
fn with_page(console: Console, arguments: &RunArgs, recipe: &Recipe) -> anyhow::Result<Console> {
    let title = format!("{} on {}", recipe.task, recipe.model.source);
    Ok(console.with_page(arguments.watch.then(|| Watch::start(title)).transpose()?))
}

#[cfg(not(feature = "serve"))]
fn with_page(console: Console, _: &RunArgs, _: &Recipe) -> anyhow::Result<Console> {
    Ok(console)
}

/// Trains, together with the processes that were started with this one.
fn run<B: Backend>(
    arguments: &RunArgs,
    cli: &Cli,
    prepare: impl FnOnce() -> anyhow::Result<(Recipe, RunOptions)>,
) -> anyhow::Result<()> {
    watch_signals()?;
    let ranks = Ranks::join()?;
    let (recipe, options) = prepare()?;
    let reduction = ranks.reduction();
    let trained = match reduction.rank() {
        0 => kiln::train_together::<B>(&recipe, &options, reduction, &mut console(arguments, &recipe)?)?,
        _ => kiln::train_together::<B>(&recipe, &options, reduction, &mut Silent)?,
    };
    if let Some(trained) = trained {
        outcome::print(&trained, cli.json)?;
    }
    ranks.leave();
    Ok(())
}
