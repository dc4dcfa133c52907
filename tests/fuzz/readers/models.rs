//! Model folders: config, weights in each layout, heads and tokenizers. The models predict and embed.

mod families;
mod folders;

use std::path::Path;

use burn::tensor::Device;
use kiln_backend::{Backend, Flex};
use kiln_heads::Pooling;
use kiln_hub::{Location, PullConfig, pull};
use kiln_kernels::Precision;
use kiln_predict::{EmbedConfig, Predictor};
use serde_json::Value;

use super::{Answer, Context, Input, Judged, Reader, fingerprint};
use crate::seed::Seed;

pub use folders::classifier;

pub const MODELS: Reader =
    Reader { name: "models", share: 20, seeds, read: read_model, judge: judge_model, repeated: true };

fn seeds(_: &Context) -> anyhow::Result<Vec<Seed>> {
    Ok(vec![
        folders::classifier(),
        folders::mean_head(),
        folders::tagger(),
        folders::crf_tagger(),
        folders::answers(),
        folders::masked(),
        folders::shards(),
        folders::pickle()?,
        families::modernbert(),
        families::albert(),
    ])
}

/// Texts for the models: empty, short and long, in several scripts.
const TEXTS: [&str; 6] =
    ["房间 Clean!", "", "un-able cafe\u{301} 😀 👨‍👩‍👧", "\u{200b}\u{0}\t", "[CLS] [MASK] 房 [SEP]", "间"];

fn read_model(input: &Input<'_>) -> anyhow::Result<Answer> {
    let device = Flex::device(0);
    // This check refuses pickles with code and shards outside the folder. Reading a model on disk does not include it.
    let location = Location::Directory(input.folder.to_owned());
    let pulled = pull(&location, &PullConfig::default(), &mut |_| ()).map(|_| ());
    if input.seed == "pickle" {
        pulled?;
        return embed(input, &device);
    }
    let predictor = Predictor::from_folder(input.folder, &device)?;
    let long = "房间 clean ".repeat(40);
    let texts: Vec<(&str, Option<&str>)> = match input.seed {
        "answers" => TEXTS.iter().map(|text| (*text, Some(long.as_str()))).chain([("间", Some(""))]).collect(),
        "masked" => vec![("房[MASK]clean", None), ("[MASK]", Some("间[MASK]"))],
        "tagger" | "crf" => TEXTS.iter().map(|text| (*text, None)).chain([(long.as_str(), None)]).collect(),
        _ => {
            let pairs = [("房间", Some("clean")), (long.as_str(), Some(long.as_str())), (long.as_str(), None)];
            TEXTS.iter().map(|text| (*text, None)).chain(pairs).collect()
        }
    };
    let predictions = predictor.predict(&texts).map_err(|error| in_folder(error, input.folder))?;
    let json = serde_json::to_value(&predictions)?;
    let problem = match predictions.len() == texts.len() {
        true => problem(&json),
        false => Some(format!("{} predictions for {} texts", predictions.len(), texts.len())),
    };
    Ok(Answer { fingerprint: fingerprint(&json), rows: predictions.len(), problem })
}

fn embed(input: &Input<'_>, device: &Device) -> anyhow::Result<Answer> {
    let config = EmbedConfig { pooling: Pooling::Mean, normalize: false, precision: Precision::F32 };
    let embedder = config.load(input.folder, device)?;
    let vectors = embedder.embed(&TEXTS.map(|text| (text, None))).map_err(|error| in_folder(error, input.folder))?;
    let broken = vectors.iter().find(|number| !number.is_finite());
    let problem = broken.map(|number| format!("a vector holds {number}"));
    Ok(Answer { fingerprint: fingerprint(&vectors), rows: vectors.len(), problem })
}

/// Adds the folder to errors that name a text instead: outputs that are not finite, and texts without a mask.
fn in_folder(error: kiln_predict::Error, folder: &Path) -> anyhow::Error {
    match error {
        kiln_predict::Error::NotFinite { .. } | kiln_predict::Error::NoMask { .. } => {
            anyhow::Error::from(error).context(folder.display().to_string())
        }
        error => error.into(),
    }
}

/// Finds a score that is not a number, a probability outside its range, or a passage that ends before it starts.
fn problem(value: &Value) -> Option<String> {
    match value {
        Value::Object(map) => {
            // A regression may return any number, and an answer's score is a sum over windows, as in transformers.
            let of_probability = ["label", "labels", "token", "start"].iter().any(|key| map.contains_key(*key));
            let most = if of_probability && !map.contains_key("answer") { 1.000_001 } else { f64::MAX };
            let least = if of_probability { 0.0 } else { f64::MIN };
            let named = map.get("scores").and_then(Value::as_object);
            let mut scores = map.get("score").into_iter().chain(named.into_iter().flat_map(|scores| scores.values()));
            let fits = |score: &&Value| score.as_f64().is_some_and(|score| (least..=most).contains(&score));
            if let Some(score) = scores.find(|score| !fits(score)) {
                return Some(format!("a score is {score}: {}", shorten(value)));
            }
            if let (Some(start), Some(end)) = (map.get("start"), map.get("end"))
                && start.as_u64() > end.as_u64()
            {
                return Some(format!("a passage from {start} to {end}"));
            }
            map.values().find_map(problem)
        }
        Value::Array(values) => values.iter().find_map(problem),
        _ => None,
    }
}

fn shorten(value: &Value) -> String {
    value.to_string().chars().take(200).collect()
}

/// Finds loaded weights that are truncated or have another shape, and a changed index that changes predictions.
fn judge_model(judged: &Judged<'_>) -> Option<String> {
    let change = judged.mutant.only()?;
    let weights = judged.mutant.path.ends_with(".safetensors");
    if change.reshaped {
        return Some("a tensor of another shape was loaded".to_owned());
    }
    if change.truncated && weights {
        return Some("weights that are cut off were loaded".to_owned());
    }
    let other = judged.answer.fingerprint != judged.seed.fingerprint;
    (other && judged.mutant.path.ends_with(".index.json")).then(|| "a changed index gives other predictions".to_owned())
}
