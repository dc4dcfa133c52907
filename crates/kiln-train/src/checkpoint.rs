use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use kiln_bert::{FloatType, NamedParameter, Weights, load, parameters, save, save_with_note};
use serde::{Deserialize, Serialize};

use crate::{AdamW, EpochReport, Error};

/// Where a run stands: with weights and moments, all that it takes to go on as if it had never stopped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Settings and data that a resumed run must share.
    pub fingerprint: String,
    /// The current epoch, from 0.
    pub epoch: usize,
    /// Updates made in it.
    pub updates_in_epoch: usize,
    /// Updates made in all.
    pub step: usize,
    /// Sum of the losses of the rows seen in this epoch.
    pub loss_sum: f64,
    /// How many of their targets were right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correct: Option<usize>,
    /// How many targets they have.
    pub rows: usize,
    /// The best epoch so far and its score.
    pub best: Option<(usize, f64)>,
    /// Of the epochs that are complete.
    pub reports: Vec<EpochReport>,
}

const LAST: &str = "last.safetensors";
const BEST: &str = "best.safetensors";

/// Writes weights, moments and progress as one file, so that they cannot disagree.
pub(crate) fn write_last<M: Module>(
    folder: &Path,
    model: &M,
    optimizer: &AdamW,
    progress: &Progress,
) -> Result<(), Error> {
    let weights = parameters(model).into_iter().map(|p| NamedParameter { name: format!("model.{}", p.name), ..p });
    let tensors: Vec<NamedParameter> = weights.chain(optimizer.state()).collect();
    // TOML, because its floats come back to the bit.
    let note = toml::to_string(progress).expect("progress is TOML");
    Ok(save_with_note(&folder.join(LAST), &tensors, note)?)
}

/// Reads what [`write_last`] wrote, into a model of the same shape.
pub(crate) fn read_last<M: Module>(
    folder: &Path,
    model: M,
    weight_decay: f64,
    fingerprint: &str,
    device: &Device,
) -> Result<(M, AdamW, Progress), Error> {
    let file = Weights::from_file(&folder.join(LAST))?;
    let bad = |reason: String| Error::Checkpoint { path: file.path().to_owned(), reason };
    let note = file.note().ok_or_else(|| bad("it holds no progress".to_owned()))?;
    let progress: Progress = toml::from_str(note).map_err(|error| bad(error.to_string()))?;
    if progress.fingerprint != fingerprint {
        return Err(bad(format!("it was trained with {}; now it is {fingerprint}", progress.fingerprint)));
    }
    let model = load(model, &file, "model.")?.module;
    let optimizer = AdamW::restore(weight_decay, progress.step, &file, device)?;
    Ok((model, optimizer, progress))
}

pub(crate) fn write_best<M: Module>(folder: &Path, model: &M) -> Result<(), Error> {
    Ok(save(&folder.join(BEST), &parameters(model), FloatType::F32)?)
}

pub(crate) fn read_best<M: Module>(folder: &Path, model: M) -> Result<M, Error> {
    Ok(load(model, &Weights::from_file(&folder.join(BEST))?, "")?.module)
}
