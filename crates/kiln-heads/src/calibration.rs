use std::borrow::Cow;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::model_folder::write_json;

/// How a sequence classifier's logits become probabilities and labels. It is stored in a file next to `config.json`, which
/// transformers does not read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The logits are divided by the temperature.
    pub temperature: f64,
    /// For multi-label classification: the least probability at which each label is predicted, in the order of the logits.
    /// `None`: one half for all labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Vec<f64>>,
}

impl Calibration {
    /// The file's name in a model's folder, an adapter's, or a bundle.
    pub const FILE: &str = "calibration.json";

    /// Reads the calibration of a folder, or `None` if it has none.
    ///
    /// # Errors
    /// When the file cannot be read, its temperature is not a finite number above 0, or a threshold is not between 0 and 1.
    pub fn read(folder: &Path) -> Result<Option<Self>, Error> {
        let path = folder.join(Self::FILE);
        let bad = |reason: String| Error::Calibration { path: path.clone(), reason };
        let json = kiln_files::read_if_present(&path).map_err(|error| bad(error.to_string()))?;
        let Some(json) = json else { return Ok(None) };
        let calibration: Self = serde_json::from_slice(&json).map_err(|error| bad(error.to_string()))?;
        let Self { temperature, thresholds } = &calibration;
        if !(temperature.is_finite() && *temperature > 0.0) {
            return Err(bad(format!("`temperature` is {temperature}, expected a number above 0")));
        }
        if let Some(threshold) = thresholds.iter().flatten().find(|threshold| !(0.0 < **threshold && **threshold < 1.0))
        {
            return Err(bad(format!("`thresholds` has {threshold}, expected numbers between 0 and 1")));
        }
        Ok(Some(calibration))
    }

    /// Writes the calibration to an existing folder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        match serde_json::to_value(self).expect("numbers are JSON") {
            Value::Object(json) => write_json(&folder.join(Self::FILE), &json),
            _ => unreachable!("a struct is an object"),
        }
    }

    /// The logits of the calibrated probabilities. With thresholds, the logits of the thresholds are subtracted: a label is
    /// predicted if the difference is at least 0.
    ///
    /// # Shapes
    /// - `logits`: row-major `[rows, num_labels]`; the result has the same shape
    pub fn calibrated<'a>(&self, logits: &'a [f32]) -> Cow<'a, [f32]> {
        if self.temperature == 1.0 {
            return self.above_thresholds(logits);
        }
        self.above_thresholds(logits).iter().map(|logit| (f64::from(*logit) / self.temperature) as f32).collect()
    }

    /// The logits minus those of the thresholds. A label is predicted if the difference is at least 0.
    ///
    /// # Shapes
    /// - `logits`: row-major `[rows, num_labels]`; the result has the same shape
    pub fn above_thresholds<'a>(&self, logits: &'a [f32]) -> Cow<'a, [f32]> {
        let Some(thresholds) = &self.thresholds else { return Cow::Borrowed(logits) };
        let least = |threshold: &f64| (self.temperature * (threshold / (1.0 - threshold)).ln()) as f32;
        let least: Vec<f32> = thresholds.iter().map(least).collect();
        logits
            .chunks(least.len().max(1))
            .flat_map(|row| row.iter().zip(&least).map(|(logit, least)| logit - least))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_wrong_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(Calibration::read(folder.path()).expect("none is fine"), None);
        let calibration = Calibration { temperature: 2.0 / 3f64.ln(), thresholds: None };
        calibration.write(folder.path()).expect("it is writable");
        let read = Calibration::read(folder.path()).expect("it was written").expect("it is there");
        assert!((read.temperature / calibration.temperature - 1.0).abs() < 1e-15, "{read:?}");
        let threshold = "{\"temperature\": 1, \"thresholds\": [0.5, 1.0]}";
        let bad = [("{\"temperature\": -1}", "-1"), ("{}", "temperature"), ("\u{1}", "line 1"), (threshold, "has 1,")];
        for (json, word) in bad {
            std::fs::write(folder.path().join(Calibration::FILE), json).expect("it is writable");
            let message = Calibration::read(folder.path()).expect_err("it is wrong").to_string();
            assert!(message.contains(Calibration::FILE) && message.contains(word), "{message}");
        }
    }

    #[test]
    fn a_label_is_predicted_from_its_threshold_on() {
        // At temperature 2, the probability 3/4 has the logit 2 ln 3 = 2.197.
        let calibration = Calibration { temperature: 2.0, thresholds: Some(vec![0.75, 0.5]) };
        let above = calibration.calibrated(&[2.2, 0.0, 2.19, -0.1]);
        assert_eq!(above.iter().map(|logit| *logit >= 0.0).collect::<Vec<_>>(), [true, true, false, false]);
        let none = Calibration { temperature: 2.0, thresholds: None };
        assert_eq!(none.calibrated(&[1.0, -1.0]).as_ref(), [0.5, -0.5]);
    }
}
