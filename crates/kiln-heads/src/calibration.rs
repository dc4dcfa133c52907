use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::model_folder::write_json;

/// How a sequence classifier's logits become probabilities: a file beside `config.json`, which transformers does not read.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The logits are divided by it.
    pub temperature: f64,
}

impl Calibration {
    /// The file's name in a model's folder, an adapter's, or a bundle.
    pub const FILE: &str = "calibration.json";

    /// That of a folder; none where there is none.
    ///
    /// # Errors
    /// When the file cannot be read, or its temperature is not a finite number above 0.
    pub fn read(folder: &Path) -> Result<Option<Self>, Error> {
        let path = folder.join(Self::FILE);
        let bad = |reason: String| Error::Calibration { path: path.clone(), reason };
        let json = kiln_files::read_if_present(&path).map_err(|error| bad(error.to_string()))?;
        let Some(json) = json else { return Ok(None) };
        let calibration: Self = serde_json::from_slice(&json).map_err(|error| bad(error.to_string()))?;
        let Self { temperature } = calibration;
        if !(temperature.is_finite() && temperature > 0.0) {
            return Err(bad(format!("`temperature` is {temperature}, expected a number above 0")));
        }
        Ok(Some(calibration))
    }

    /// Writes it into a folder that exists.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        match serde_json::to_value(self).expect("two numbers are JSON") {
            Value::Object(json) => write_json(&folder.join(Self::FILE), &json),
            _ => unreachable!("a struct is an object"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_wrong_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(Calibration::read(folder.path()).expect("none is fine"), None);
        let calibration = Calibration { temperature: 2.0 / 3f64.ln() };
        calibration.write(folder.path()).expect("it is writable");
        let read = Calibration::read(folder.path()).expect("it was written").expect("it is there");
        assert!((read.temperature / calibration.temperature - 1.0).abs() < 1e-15, "{read:?}");
        for (json, word) in [("{\"temperature\": -1}", "-1"), ("{}", "temperature"), ("\u{1}", "line 1")] {
            std::fs::write(folder.path().join(Calibration::FILE), json).expect("it is writable");
            let message = Calibration::read(folder.path()).expect_err("it is wrong").to_string();
            assert!(message.contains(Calibration::FILE) && message.contains(word), "{message}");
        }
    }
}
