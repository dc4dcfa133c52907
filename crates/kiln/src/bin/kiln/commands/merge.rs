//! `kiln merge`: merges a base and an adapter into a plain model.

use std::path::Path;

use anyhow::Context;
use burn::tensor::Device;
use kiln::fetch::fetch_model;
use kiln::{UsageError, check_adapter};
use kiln_heads::{Calibration, load_adapted_model, merge_adapter, save_model, trained_max_length};
use kiln_tokenize::Tokenizer;
use serde_json::json;

use crate::cli::{MergeArgs, adapter_folder};
use crate::console;
use crate::observer::Console;

pub fn run(arguments: &MergeArgs, json: bool, device: &Device) -> anyhow::Result<()> {
    let MergeArgs { model, adapter, out, hub } = arguments;
    let base = fetch_model(model, &hub.options(), &mut Console::default())?;
    let adapter = adapter_folder(adapter);
    if out.join("config.json").exists() {
        let message = format!("{}: the folder already has a model; choose another --out", out.display());
        return Err(UsageError(message).into());
    }
    merge(&base, &adapter, out, device)?;
    if json {
        return console::json(&json!({ "path": out }));
    }
    Ok(console::result(out.display())?)
}

/// Merges a base and an adapter, and writes the model with the base's tokenizer into a new folder.
pub fn merge(base: &Path, adapter: &Path, out: &Path, device: &Device) -> anyhow::Result<()> {
    check_adapter(base, adapter)?;
    let mut model = load_adapted_model(base, adapter, device)?.module;
    merge_adapter(&mut model);
    let mut tokenizer = Tokenizer::from_folder(base)?;
    if let Some(max_length) = trained_max_length(adapter)? {
        tokenizer = tokenizer.with_max_length(max_length)?;
    }
    std::fs::create_dir_all(out).with_context(|| format!("{}: cannot be made", out.display()))?;
    save_model(out, &model)?;
    if let Some(calibration) = Calibration::read(adapter)? {
        calibration.write(out)?;
    }
    Ok(tokenizer.save(out)?)
}
