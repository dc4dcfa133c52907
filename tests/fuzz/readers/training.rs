//! Files of a training: checkpoints to resume from, and cached features of a frozen encoder.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Context as _;
use kiln_backend::{Backend, Flex};
use kiln_heads::{ClassificationHead, ClassificationHeadConfig, Network};
use kiln_predict::Predictor;
use kiln_schema::LabelSet;
use kiln_train::{
    Alone, Encoded, EvaluationSet, Event, FeatureCache, Features, FeaturesConfig, Fingerprint, Fit, Fitted, Targets,
    TrainConfig,
};
use serde_json::Value;

use super::{Answer, Context, Input, Judged, Reader, fingerprint, models};
use crate::mutate::safetensors;
use crate::seed::Seed;

pub const CHECKPOINTS: Reader = Reader {
    name: "checkpoints",
    share: 6,
    seeds: checkpoint_seeds,
    read: resume,
    judge: judge_checkpoint,
    repeated: true,
};

pub const FEATURES: Reader = Reader {
    name: "features",
    share: 3,
    seeds: feature_seeds,
    read: read_features,
    judge: judge_features,
    repeated: false,
};

fn set() -> anyhow::Result<Features> {
    let numbers: Vec<f32> = (0..24).map(|i| (i as f32 * 0.7).sin()).collect();
    let labels = (0..8).map(|row| row % 2).collect();
    Ok(Features::new(numbers, 3, Targets::Labels(labels, LabelSet::new(["a", "b"])?)))
}

fn head() -> ClassificationHead {
    let config = ClassificationHeadConfig {
        hidden_size: 3,
        hidden_layers: vec![4],
        num_labels: 2,
        dropout: 0.0,
        initializer_range: 0.3,
    };
    let device = Flex::device(0);
    device.seed(1);
    let head = config.init(&device);
    kiln_bert::initialize(&head);
    head
}

/// Trains for two epochs of four updates, and stops at the update `stop_at`.
fn fit(folder: &Path, resume: bool, stop_at: usize) -> anyhow::Result<Fitted<ClassificationHead>> {
    let (set, device) = (set()?, Flex::device(0));
    let config = TrainConfig { epochs: 2, batch_size: 2, ..TrainConfig::default() };
    let (train, config, device, fingerprint) = (&set, &config, &device, &Fingerprint::default());
    let reduction = &Alone;
    let fit = Fit { train, validation: train, config, fingerprint, device, checkpoints: folder, resume, reduction };
    let fitted = fit.run(head(), &mut |event| match event {
        Event::Step { step, .. } if step == stop_at => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })?;
    Ok(fitted)
}

/// The checkpoint of a training that stopped within its second epoch.
fn checkpoint_seeds(context: &Context) -> anyhow::Result<Vec<Seed>> {
    let folder = context.scratch.join("checkpoints");
    std::fs::create_dir_all(&folder)?;
    fit(&folder, false, 6)?;
    let last = without_times(&std::fs::read(folder.join("last.safetensors"))?).context("it has a note")?;
    let best = std::fs::read(folder.join("best.safetensors"))?;
    Ok(vec![Seed::new("stopped").with("last.safetensors", last).with("best.safetensors", best)])
}

/// Replaces the times in a checkpoint, so that each run makes the same one.
fn without_times(bytes: &[u8]) -> Option<Vec<u8>> {
    let (size, rest) = bytes.split_first_chunk::<8>()?;
    let (header, data) = rest.split_at_checked(u64::from_le_bytes(*size) as usize)?;
    let mut header: Value = serde_json::from_slice(header).ok()?;
    let (_, note) = header.get_mut("__metadata__")?.as_object_mut()?.iter_mut().next()?;
    let same = |line: &str| match line.split_once(" = ") {
        Some((key, _)) if key.ends_with("seconds") => format!("{key} = 1.0"),
        _ => line.to_owned(),
    };
    *note = note.as_str()?.lines().map(same).collect::<Vec<_>>().join("\n").into();
    Some(safetensors::write(&header.to_string(), data))
}

fn resume(input: &Input<'_>) -> anyhow::Result<Answer> {
    // Works on a copy, so that the input can be read again.
    let folder = input.context.scratch.join("resumed");
    std::fs::create_dir_all(&folder)?;
    for file in ["last.safetensors", "best.safetensors"] {
        let (from, to) = (input.folder.join(file), folder.join(file));
        std::fs::remove_file(&to).ok();
        if from.is_file() {
            std::fs::copy(from, to)?;
        }
    }
    let fitted = fit(&folder, true, usize::MAX).map_err(|error| match error.downcast_ref() {
        // The checkpoint had large numbers, so that the training diverged. That error names no file.
        Some(kiln_train::Error::Diverged { .. } | kiln_train::Error::DivergedInValidation { .. }) => {
            error.context("last.safetensors")
        }
        _ => error,
    })?;
    let logits = set()?.output(&fitted.model, 4, &Flex::device(0));
    let broken = logits.iter().find(|logit| !logit.is_finite());
    let problem = broken.map(|logit| format!("a logit of the resumed model is {logit}"));
    Ok(Answer { fingerprint: fingerprint(&(&logits, fitted.steps, fitted.best_epoch)), rows: fitted.steps, problem })
}

fn judge_checkpoint(judged: &Judged<'_>) -> Option<String> {
    let change = judged.mutant.only()?;
    if change.reshaped {
        return Some("a tensor of another shape was resumed from".to_owned());
    }
    if change.truncated && change.bytes.len() < judged.original.len() {
        return Some("a checkpoint that is cut off was resumed from".to_owned());
    }
    let steps = judged.answer.rows != judged.seed.rows;
    steps.then(|| format!("{} updates, and there are {}", judged.answer.rows, judged.seed.rows))
}

/// Computes the classifier's features for a few texts.
fn compute(model: &Path, cache: &Path) -> anyhow::Result<Answer> {
    let device = Flex::device(0);
    let predictor = Predictor::from_folder(model, &device)?;
    let Network::SequenceClassification { model, labels, .. } = predictor.network() else {
        anyhow::bail!("the seed is a classifier");
    };
    let texts = ["房间", "clean", "un-able 间", "!"];
    let encodings = predictor.tokenizer().encode_all(texts.map(|text| (text, None)))?;
    let rows = Encoded::new(encodings, Targets::Labels(vec![0, 1, 2, 0], labels.clone()), 0);
    let cache = FeatureCache { folder: cache.to_owned(), encoder_hash: "0".to_owned() };
    let config = FeaturesConfig { batch_size: 2, cache: Some(cache) };
    let (features, _) = Features::compute(model, &rows, &config, &device, &mut |_| ())?;
    let logits = features.output(&model.head, 4, &device);
    Ok(Answer { fingerprint: fingerprint(&(features.width(), logits)), rows: texts.len(), problem: None })
}

fn feature_seeds(context: &Context) -> anyhow::Result<Vec<Seed>> {
    let (model, cache) = (context.scratch.join("model"), context.scratch.join("features"));
    models::classifier().write(&model, None)?;
    compute(&model, &cache)?;
    let mut seed = Seed::new("cache").beside_folder("model", &models::classifier());
    for entry in std::fs::read_dir(&cache)? {
        let entry = entry?;
        seed = seed.with(format!("features/{}", entry.file_name().to_string_lossy()), std::fs::read(entry.path())?);
    }
    Ok(vec![seed])
}

fn read_features(input: &Input<'_>) -> anyhow::Result<Answer> {
    compute(&input.folder.join("model"), &input.folder.join("features"))
}

/// Checks that features of a damaged cache are computed again.
fn judge_features(judged: &Judged<'_>) -> Option<String> {
    let other = judged.answer.fingerprint != judged.seed.fingerprint;
    other.then(|| "damaged features were taken from the cache".to_owned())
}
