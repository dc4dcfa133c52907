//! `kiln pipeline`: a training with all its stages; without a recipe, that of the embedded sample.

use burn::tensor::Device;
use kiln_backend::Backend;

use crate::checkpoint::sample_folder;
use crate::cli::PipelineArgs;
use crate::commands::train::train;
use crate::recipe::Recipe;

pub fn run<B: Backend>(arguments: &PipelineArgs, json: bool, device: &Device) -> anyhow::Result<()> {
    let (path, name) = match &arguments.recipe {
        Some(path) => (path.clone(), path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("run").to_owned()),
        None => (kiln_sample::unpack(&sample_folder())?.recipe, "sample".to_owned()),
    };
    let recipe = Recipe::load(&path, &arguments.run.set.set)?;
    train::<B>(&recipe, &name, &arguments.run, device)?.print(json)
}
