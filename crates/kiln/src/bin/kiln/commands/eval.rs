//! `kiln eval`: the metrics of a model on a labelled file.

use anyhow::{Context, bail};
use burn::tensor::Device;
use kiln::fetch::fetch_model;
use kiln::{ModelFolders, UsageError, evaluate, open_predictor};
use kiln_backend::Backend;
use kiln_eval::SplitReport;

use super::outcome::print_splits;
use crate::cli::EvalArgs;
use crate::console;
use crate::input::{Input, refuse_to_overwrite};
use crate::observer::Console;

pub fn run<B: Backend>(arguments: &EvalArgs, json: bool, device: &Device) -> anyhow::Result<()> {
    let mut console = Console::default();
    let folder = fetch_model(&arguments.model.model, &arguments.model.hub.options(), &mut console)?;
    let adapter = arguments.model.adapter.folder();
    // A run's recipe is next to its adapter too.
    let beside = adapter.as_ref().unwrap_or(&folder);
    let input = Input::labelled(beside, &arguments.data, &arguments.columns, arguments.label.as_ref())?;
    if let Some(out) = &arguments.out {
        for name in ["report.json", "report.html", "errors.tsv"] {
            refuse_to_overwrite(&out.join(name), std::slice::from_ref(&arguments.data))?;
        }
        if out.join("run.toml").exists() {
            let out = out.display();
            bail!(UsageError(format!("{out} holds a run, whose report would be replaced; choose another --out")));
        }
    }
    let model = ModelFolders { model: &folder, adapter: adapter.as_deref() };
    let predictor = open_predictor::<B>(model, arguments.precision.precision, device, &mut console)?;
    let evaluated = evaluate::<B>(&predictor, beside, input.source.clone(), device, &mut console)?;
    if let Some(out) = &arguments.out {
        std::fs::create_dir_all(out).with_context(|| format!("{}: cannot be created", out.display()))?;
        evaluated.write(out)?;
    }
    if json {
        return console::json(&evaluated.report);
    }
    print_splits(&evaluated.report)?;
    for label in evaluated.report.splits.values().flat_map(SplitReport::labels) {
        console::result(format_args!(
            "{:<16} precision {:.4}  recall {:.4}  F1 {:.4}  support {}",
            label.label, label.precision, label.recall, label.f1, label.support
        ))?;
    }
    Ok(())
}
