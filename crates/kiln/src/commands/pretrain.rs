//! `kiln pretrain`: a training whose recipe is one of raw text.

use burn::tensor::Device;
use kiln_backend::Backend;
use kiln_schema::Task;

use super::train;
use crate::cli::{TrainArgs, UsageError};
use crate::recipe::Recipe;

pub fn run<B: Backend>(arguments: &TrainArgs, json: bool, device: &Device) -> anyhow::Result<()> {
    let task = Recipe::load(&arguments.recipe, &arguments.run.set.set)?.task;
    if task != Task::MaskedLm {
        let message = format!("{}: the task is `{task}`, expected `masked-lm`", arguments.recipe.display());
        return Err(UsageError(message).into());
    }
    train::run::<B>(arguments, json, device)
}
