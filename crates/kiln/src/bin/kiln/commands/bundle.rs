//! `kiln bundle` and `kiln verify`: a model sealed for serving, and whether it still is.

use std::path::Path;

use anyhow::{Context, bail};
use burn::tensor::Device;
use kiln::fetch::fetch_model;
use kiln::{BundleOptions, CheckOptions, bundle};
use kiln_backend::Backend;
use kiln_bundle::{DifferenceKind, Error, Manifest, verify};
use serde_json::json;
use tempfile::TempDir;

use super::merge::merge;
use crate::cli::{BundleArgs, VerifyArgs};
use crate::console;
use crate::input::Input;
use crate::observer::Console;

pub fn run<B: Backend>(arguments: &BundleArgs, json: bool, device: &Device) -> anyhow::Result<()> {
    let BundleArgs { model, out, precision, check, max_loss, columns, label } = arguments;
    let mut console = Console::default();
    let folder = fetch_model(&model.model, &model.hub.options(), &mut console)?;
    let adapter = model.adapter.folder();
    // A run's recipe is beside its adapter too.
    let beside = adapter.as_ref().unwrap_or(&folder);
    let merged = adapter.as_ref().map(|adapter| merged(&folder, adapter, device)).transpose()?;
    // Kept as long as it is read: it may be a copy of what can be read only once.
    let input = check.as_ref().map(|data| Input::labelled(beside, data, columns, label.as_ref())).transpose()?;
    let check = input.as_ref().map(|input| CheckOptions { data: input.source.clone(), max_loss: *max_loss });
    let options = BundleOptions { precision: *precision, check };
    let folder = merged.as_ref().map_or(folder, |merged| merged.path().join(MODEL));
    let manifest = bundle::<B>(&folder, out, options, device, &mut console)?;
    if json {
        return console::json(&manifest);
    }
    console::result(format_args!("{}: {}", out.display(), summary(&manifest)))?;
    if let Some(check) = &manifest.check {
        console::result(format_args!(
            "{}: {:.4} in f32, {:.4} in the bundle, {} examples: it loses {:.2} points",
            check.metric,
            check.f32,
            check.bundle,
            check.examples,
            check.loss()
        ))?;
    }
    Ok(())
}

/// The model's folder in a run's.
const MODEL: &str = "model";

/// A base and an adapter as a run's folder: the plain model, and what the adapter's run says of it.
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
    bail!("{folder}: the bundle is not as its manifest says: {} files differ", differences.len());
}

fn summary(manifest: &Manifest) -> String {
    let bytes: u64 = manifest.files.values().map(|file| file.bytes).sum();
    let megabytes = bytes as f64 / 1e6;
    format!("{} files of {megabytes:.1} MB, sha256 {}", manifest.files.len(), manifest.sha256)
}
