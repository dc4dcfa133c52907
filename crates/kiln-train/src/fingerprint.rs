use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::TrainConfig;

/// Everything that the result of a run depends on. A run is resumed only if all of it is unchanged.
///
/// ```
/// use kiln_train::{Fingerprint, TrainConfig};
///
/// let before = Fingerprint::default().with_config(&TrainConfig { epochs: 3, ..TrainConfig::default() });
/// let now = Fingerprint::default().with_config(&TrainConfig { epochs: 5, ..TrainConfig::default() });
/// assert_eq!(before.differences(&now), ["train.epochs: 3 before, 5 now"]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Values by the keys with which a user sets them, such as `train.max_length`.
    pub settings: BTreeMap<String, String>,
    /// Hashes of files by the names that a user knows, such as `data.train`.
    pub contents: BTreeMap<String, String>,
}

impl Fingerprint {
    /// Adds the settings of the training loop, except for three kinds. The intervals of checkpoints and the time limit do
    /// not change the weights after an update. The trained parameters follow from the settings of the model.
    pub fn with_config(mut self, config: &TrainConfig) -> Self {
        let TrainConfig {
            epochs,
            batch_size,
            gradient_accumulation_steps,
            learning_rate,
            lr_scheduler,
            warmup_ratio,
            head_learning_rate,
            scope: _,
            weight_decay,
            max_grad_norm,
            layerwise_lr_decay,
            early_stopping_patience,
            metric,
            seed,
            save_steps: _,
            save_minutes: _,
            max_hours: _,
            eval_steps,
            fgm,
            ema,
            reduce,
        } = config;
        let settings = [
            ("epochs", epochs.to_string()),
            ("batch_size", batch_size.to_string()),
            ("gradient_accumulation_steps", gradient_accumulation_steps.to_string()),
            ("learning_rate", format!("{learning_rate:?}")),
            ("lr_scheduler", format!("{lr_scheduler:?}").to_lowercase()),
            ("warmup_ratio", format!("{warmup_ratio:?}")),
            ("weight_decay", format!("{weight_decay:?}")),
            ("max_grad_norm", format!("{max_grad_norm:?}")),
            ("layerwise_lr_decay", format!("{layerwise_lr_decay:?}")),
            ("early_stopping_patience", early_stopping_patience.to_string()),
            ("metric", metric.name().to_owned()),
            ("seed", seed.to_string()),
            ("eval_steps", eval_steps.to_string()),
            ("fgm", format!("{fgm:?}")),
            ("ema", format!("{ema:?}")),
        ];
        let head = head_learning_rate.map(|rate| ("head_learning_rate", format!("{rate:?}")));
        // Checkpoints from before the setting existed do not have the key; they are exact.
        let reduce = (!reduce.is_exact()).then(|| ("reduce", reduce.name().to_owned()));
        let settings = settings.into_iter().chain(head).chain(reduce);
        self.settings.extend(settings.map(|(key, value)| (format!("train.{key}"), value)));
        self
    }

    /// The keys whose values or file contents differ between the two fingerprints.
    pub fn differing_keys(&self, other: &Self) -> Vec<String> {
        let settings = changed(&self.settings, &other.settings);
        settings.into_iter().chain(changed(&self.contents, &other.contents)).cloned().collect()
    }

    /// A message for each key whose value or file contents differ between this fingerprint and `now`.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let value = |settings: &BTreeMap<String, String>, key: &str| {
            settings.get(key).map_or_else(|| "not set".to_owned(), String::clone)
        };
        let settings = changed(&self.settings, &now.settings)
            .into_iter()
            .map(|key| format!("{key}: {} before, {} now", value(&self.settings, key), value(&now.settings, key)));
        let contents = changed(&self.contents, &now.contents).into_iter().map(|key| {
            match (self.contents.contains_key(key), now.contents.contains_key(key)) {
                (true, true) => format!("{key}: the file's contents have changed"),
                (true, false) => format!("{key}: given before, not now"),
                (false, _) => format!("{key}: given now, not before"),
            }
        });
        settings.chain(contents).collect()
    }
}

/// The keys that are in only one of two maps, or whose values differ.
fn changed<'a>(before: &'a BTreeMap<String, String>, now: &'a BTreeMap<String, String>) -> Vec<&'a String> {
    let keys: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    keys.into_iter().filter(|key| before.get(*key) != now.get(*key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn each_difference_names_its_key_and_both_values() {
        let before = Fingerprint {
            settings: map(&[("model.crf", "true"), ("train.max_length", "64"), ("train.seed", "1")]),
            contents: map(&[("data.test", "aa"), ("data.train", "bb"), ("data.validation", "cc")]),
        };
        let now = Fingerprint {
            settings: map(&[("data.format", "tsv"), ("train.max_length", "16"), ("train.seed", "1")]),
            contents: map(&[("data.train", "dd"), ("data.validation", "cc"), ("masking.words", "ee")]),
        };
        assert_eq!(
            before.differences(&now),
            [
                "data.format: not set before, tsv now",
                "model.crf: true before, not set now",
                "train.max_length: 64 before, 16 now",
                "data.test: given before, not now",
                "data.train: the file's contents have changed",
                "masking.words: given now, not before",
            ]
        );
        assert!(before.differences(&before).is_empty());
    }
}
