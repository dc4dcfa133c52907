//! `kiln forecast`: the estimated cost of a training.

use indicatif::{HumanBytes, HumanDuration};
use kiln::{Forecast, Recipe, RunOptions};
use kiln_backend::Backend;
use std::time::Duration;

use crate::cli::{Cli, ForecastArgs};
use crate::console::{self, counted};
use crate::observer::Console;

pub fn run<B: Backend>(arguments: &ForecastArgs, cli: &Cli) -> anyhow::Result<()> {
    let recipe = Recipe::load(&arguments.recipe, &arguments.set.set)?;
    let options = RunOptions { device: cli.device::<B>(), hub: arguments.hub.options(), ..RunOptions::default() };
    let forecast = kiln::forecast::<B>(&recipe, &options, &mut Console::default())?;
    if cli.json { console::json(&forecast) } else { print(&forecast, recipe.train.epochs) }
}

fn print(forecast: &Forecast, epochs: usize) -> anyhow::Result<()> {
    let duration = |seconds: f64| HumanDuration(Duration::from_secs_f64(seconds));
    let Forecast { seconds, train_tokens, steps, .. } = forecast;
    console::result(format_args!(
        "epoch   {:#} ({:.1} s), {train_tokens} tokens",
        duration(seconds.epoch),
        seconds.epoch
    ))?;
    let total = format!("{:#} ({:.1} s)", duration(seconds.total), seconds.total);
    let [epochs, steps] = [(epochs, "epoch"), (*steps, "update")].map(|(count, thing)| counted(count, thing));
    console::result(format_args!("total   {total} for {epochs}, {steps}"))?;
    console::result(format_args!("memory  {} at most", HumanBytes(forecast.peak_rss_bytes)))?;
    console::result(format_args!("disk    {}", HumanBytes(forecast.disk_bytes)))?;
    let fits = "it fits into the memory and the disk space that are free now";
    let not = "it does not fit: try a smaller train.batch_size with more train.gradient_accumulation_steps, \
               train.gradient_checkpointing = true, a shorter train.max_length, or model.encoder = \"frozen\"";
    Ok(console::result(if forecast.fits { fits } else { not })?)
}
