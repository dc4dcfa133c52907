//! `kiln compare`: compares two models on the same labelled rows.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use burn::tensor::Device;
use kiln::fetch::fetch_model;
use kiln::recipe::{DataPath, Files};
use kiln::{ModelFolders, UsageError, evaluate, open_predictor, recipe_beside};
use kiln_backend::Backend;
use kiln_eval::{Comparison, Judged};
use kiln_hub::Source;

use crate::cli::CompareArgs;
use crate::console;
use crate::input::{Input, refuse_to_overwrite};
use crate::observer::Console;

pub fn run<B: Backend>(arguments: &CompareArgs, json: bool, device: &Device) -> anyhow::Result<()> {
    let mut console = Console::default();
    let hub = arguments.hub.options();
    let mut folder = |source: &Source| fetch_model(source, &hub, &mut console);
    let folders = [folder(&arguments.a)?, folder(&arguments.b)?];
    let data = match &arguments.data {
        Some(data) => data.clone(),
        None => test_file(&folders[0])?,
    };
    if let Some(changed) = &arguments.changed {
        refuse_to_overwrite(changed, std::slice::from_ref(&data))?;
    }
    // Both models read the file the same way, by the recipe next to one of them.
    let has_recipe = |folder: &&PathBuf| matches!(recipe_beside(folder), Ok(Some(_)));
    let reader = folders.iter().find(has_recipe).unwrap_or(&folders[0]);
    let input = Input::labelled(reader, &data, &arguments.columns, arguments.label.as_ref())?;
    let mut judged = Vec::new();
    for folder in &folders {
        judged.push(judge::<B>(arguments, folder, &input, device)?);
    }
    let [a, b] = <[Judged; 2]>::try_from(judged).expect("two models");
    if a.metric() != b.metric() || a.len() != b.len() {
        bail!(UsageError(format!(
            "the models cannot be compared: {} is scored by {} on {} rows, {} by {} on {}",
            folders[0].display(),
            a.metric(),
            a.len(),
            folders[1].display(),
            b.metric(),
            b.len()
        )));
    }
    let comparison = Comparison::new(&a, &b);
    if let Some(path) = &arguments.changed {
        kiln_files::write(path, changed_rows(&a, &b).as_bytes())
            .with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    if json { console::json(&comparison) } else { print(&comparison) }
}

fn judge<B: Backend>(arguments: &CompareArgs, folder: &Path, input: &Input, device: &Device) -> anyhow::Result<Judged> {
    let mut console = Console::default();
    let folders = ModelFolders { model: folder, adapter: None };
    let predictor = open_predictor::<B>(folders, arguments.precision.precision, device, &mut console)?;
    let evaluated = evaluate::<B>(&predictor, folder, input.source.clone(), device, &mut console)?;
    let no_labels = || UsageError(format!("{}: a masked language model has no labelled rows", folder.display()));
    Ok(evaluated.judged.ok_or_else(no_labels)?)
}

/// The test file of the recipe next to a model, or its validation file.
fn test_file(model: &Path) -> anyhow::Result<PathBuf> {
    let missing =
        || UsageError(format!("{}: no recipe next to it names a test file; expected --data", model.display()));
    let recipe = recipe_beside(model)?.ok_or_else(missing)?;
    match &recipe.data.files {
        Files::Splits(splits) => match splits.test.as_ref().unwrap_or(&splits.validation) {
            DataPath::Local(path) => Ok(path.clone()),
            DataPath::Hub(_) => Err(missing().into()),
        },
        _ => Err(missing().into()),
    }
}

/// A table of the rows, numbered from 1, that only one of the two models has right.
fn changed_rows(a: &Judged, b: &Judged) -> String {
    let mut table = String::from("row\tright\n");
    for row in 0..a.len() {
        match (a.is_right(row), b.is_right(row)) {
            (Some(true), Some(false)) => table += &format!("{}\ta\n", row + 1),
            (Some(false), Some(true)) => table += &format!("{}\tb\n", row + 1),
            _ => {}
        }
    }
    table
}

fn print(comparison: &Comparison) -> anyhow::Result<()> {
    let Comparison { metric, a, b, difference, interval: [low, high], examples, .. } = comparison;
    console::result(format_args!("{metric} on {}: a {a:.4}, b {b:.4}", console::counted(*examples, "row")))?;
    console::result(format_args!(
        "difference {difference:+.4}, within {low:+.4} to {high:+.4} (95 %, paired bootstrap)"
    ))?;
    if let Some(p) = comparison.mcnemar_p {
        let (only_a, only_b) = (comparison.only_a, comparison.only_b);
        console::result(format_args!("right only by a {only_a}, only by b {only_b}; McNemar's exact test p = {p:.4}"))?;
    }
    console::result(format_args!("effect size (Cohen's d) {:+.3}", comparison.effect_size))?;
    let verdict = match (comparison.is_significant(), *difference > 0.0) {
        (false, _) => "no significant difference",
        (true, true) => "b is better",
        (true, false) => "a is better",
    };
    Ok(console::result(verdict)?)
}
