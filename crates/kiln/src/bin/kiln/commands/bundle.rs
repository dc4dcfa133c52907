//! `kiln bundle` and `kiln verify`: creates a bundle for serving, and verifies one.

use std::path::Path;

use anyhow::{Context, bail};
use burn::tensor::Device;
use kiln::fetch::fetch_model;
use kiln::recipe::Precision;
use kiln::{BundleOptions, CheckOptions, UsageError, bundle, recipe_beside};
use kiln_backend::Backend;
use kiln_bundle::{ActivationScales, DifferenceKind, Error, Manifest, Smoothed, verify};
use kiln_dataset::Row;
use kiln_schema::Task;
use serde_json::json;
use tempfile::TempDir;

use super::merge::merge;
use crate::cli::{BundleArgs, ColumnArgs, VerifyArgs};
use crate::console;
use crate::input::Input;
use crate::observer::Console;

pub fn run<B: Backend>(arguments: &BundleArgs, json: bool, device: &Device) -> anyhow::Result<()> {
    let BundleArgs { model, out, precision, calibrate, static_scales, check, max_loss, columns, label } = arguments;
    if calibrate.is_some() && *precision != Precision::Int8 {
        let precision = precision.name();
        bail!(UsageError(format!("--calibrate is for --precision int8, and the precision is {precision}")));
    }
    let mut console = Console::default();
    let folder = fetch_model(&model.model, &model.hub.options(), &mut console)?;
    let adapter = model.adapter.folder();
    // A run's recipe is next to its adapter too.
    let beside = adapter.as_ref().unwrap_or(&folder);
    let merged = adapter.as_ref().map(|adapter| merged(&folder, adapter, device)).transpose()?;
    // Must outlive its readers: it may be a temporary copy.
    let input = check.as_ref().map(|data| Input::labelled(beside, data, columns, label.as_ref())).transpose()?;
    let check = input.as_ref().map(|input| CheckOptions { data: input.source.clone(), max_loss: *max_loss });
    let calibrate = calibrate.as_ref().map(|file| calibration_texts(beside, file, columns)).transpose()?;
    let scales = if *static_scales { ActivationScales::Static } else { ActivationScales::Dynamic };
    let options = BundleOptions { precision: *precision, calibrate, scales, check };
    let folder = merged.as_ref().map_or(folder, |merged| merged.path().join(MODEL));
    let manifest = bundle::<B>(&folder, out, options, device, &mut console)?;
    if json {
        return console::json(&manifest);
    }
    console::result(format_args!("{}: {}", out.display(), summary(&manifest)))?;
    if let Some(smoothed) = &manifest.smoothing {
        console::result(format_args!("{}", in_words(smoothed)))?;
    }
    if let Some(check) = &manifest.check {
        console::result(format_args!(
            "{}: {:.4} in f32, {:.4} in the bundle, {}: it loses {:.2} points",
            check.metric,
            check.f32,
            check.bundle,
            console::counted(check.examples, "example"),
            check.loss()
        ))?;
    }
    Ok(())
}

/// Texts evenly spread over a file, because the file may be sorted.
fn calibration_texts(model: &Path, file: &Path, columns: &ColumnArgs) -> anyhow::Result<Vec<(String, Option<String>)>> {
    const MOST: usize = 256;
    let task = recipe_beside(model)?.map_or(Task::SequenceClassification, |recipe| recipe.task);
    // The column options are those of the labelled file if this file has a text on each line.
    let plain = ColumnArgs::default();
    let columns = if file.extension().is_some_and(|ending| ending == "txt") { &plain } else { columns };
    let rows = Input::texts(model, file, columns, Some(task))?.rows()?.collect::<anyhow::Result<Vec<Row>>>()?;
    if rows.is_empty() {
        bail!("{}: there are no rows", file.display());
    }
    let step = rows.len().div_ceil(MOST);
    Ok(rows.into_iter().step_by(step).map(|row| (row.text, row.text_pair)).collect())
}

/// A text about the calibration: the chosen smoothing and its effect.
fn in_words(smoothed: &Smoothed) -> String {
    let texts = console::counted(smoothed.texts, "text");
    let calibrated = match smoothed.scales {
        ActivationScales::Dynamic => format!("calibrated on {texts}"),
        ActivationScales::Static => format!("calibrated on {texts}, static scales"),
    };
    let error = |strength: Option<f64>| {
        let candidate = smoothed.candidates.iter().find(|candidate| candidate.strength == strength);
        candidate.map_or(f64::NAN, |candidate| candidate.mean_squared_error)
    };
    let plain = error(None);
    match smoothed.strength {
        Some(strength) => format!(
            "{calibrated}: smoothed with strength {strength}; mean squared error {:.3e}, {plain:.3e} without smoothing",
            error(Some(strength))
        ),
        None => format!("{calibrated}: smoothing does not help and is left out; mean squared error {plain:.3e}"),
    }
}

/// The name of the model's folder in a run's folder.
const MODEL: &str = "model";

/// Merges a base and an adapter into a temporary run's folder: the plain model, and the recipe and report of the adapter's
/// run.
fn merged(base: &Path, adapter: &Path, device: &Device) -> anyhow::Result<TempDir> {
    let folder = tempfile::tempdir()?;
    merge(base, adapter, &folder.path().join(MODEL), device)?;
    for name in ["run.toml", "report.json"] {
        let path = adapter.join("..").join(name);
        let cannot_read = || format!("{}: cannot be read", path.display());
        if let Some(bytes) = kiln_files::read_if_present(&path).with_context(cannot_read)? {
            kiln_files::write(&folder.path().join(name), &bytes)?;
        }
    }
    Ok(folder)
}

/// `kiln verify`
pub fn verified(arguments: &VerifyArgs, json: bool) -> anyhow::Result<()> {
    let (folder, verified) = (arguments.bundle.display(), verify(&arguments.bundle));
    let differences = match verified {
        Ok(manifest) if json => return console::json(&json!({ "ok": true, "manifest": manifest })),
        Ok(manifest) => return Ok(console::result(format_args!("{folder}: {}", summary(&manifest)))?),
        Err(Error::Differs { differences, .. }) => differences,
        Err(error) => return Err(error.into()),
    };
    if json {
        let of = |kind: DifferenceKind| -> Vec<&str> {
            let of_kind = differences.iter().filter(|difference| difference.kind == kind);
            of_kind.map(|difference| difference.name.as_str()).collect()
        };
        console::json(&json!({
            "ok": false,
            "missing": of(DifferenceKind::Missing),
            "changed": of(DifferenceKind::Changed),
            "extra": of(DifferenceKind::Extra),
        }))?;
    } else {
        for difference in &differences {
            console::result(format_args!("{:<8} {}", difference.kind.name(), difference.name))?;
        }
    }
    bail!("{folder}: the bundle differs from its manifest in {}", console::counted(differences.len(), "file"));
}

fn summary(manifest: &Manifest) -> String {
    let bytes: u64 = manifest.files.values().map(|file| file.bytes).sum();
    let megabytes = bytes as f64 / 1e6;
    format!("{} of {megabytes:.1} MB, sha256 {}", console::counted(manifest.files.len(), "file"), manifest.sha256)
}
