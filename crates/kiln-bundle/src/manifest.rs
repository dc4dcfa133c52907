use std::collections::BTreeMap;
use std::fmt::Write;

use kiln_heads::Pooling;
use kiln_kernels::Precision;
use kiln_schema::Task;
use serde::{Deserialize, Serialize};

use crate::verify::hexadecimal;

/// The file name of the manifest in a bundle.
pub const MANIFEST: &str = "manifest.json";

/// The manifest of a bundle: metadata, and the digest of every other file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of Kiln that made the bundle.
    pub kiln: String,
    /// The task of the model. An encoder without a head has none, which is written as `feature-extraction`.
    #[serde(with = "task_name")]
    pub task: Option<Task>,
    /// The precision of the encoder's stored weights and of its matrix products: `f32`, `bf16` or `int8`.
    #[serde(with = "precision_name")]
    pub precision: Precision,
    /// The labels in the order of the logits, if the task has labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// How the bundle computes vectors.
    pub vectors: Vectors,
    /// The checkpoint that the model was trained from.
    pub base: Base,
    /// Every file except the manifest, by name.
    pub files: BTreeMap<String, FileEntry>,
    /// SHA-256 of [`Manifest::listing`]. It identifies the contents of all files.
    pub sha256: String,
    /// How the int8 bundle was calibrated, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smoothing: Option<Smoothed>,
    /// The accuracy of the bundle compared with the same model in f32, if it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
}

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// Length in bytes.
    pub bytes: u64,
}

/// The default way to compute a vector for a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vectors {
    /// How hidden states are pooled into a vector.
    pub pooling: Pooling,
    /// Whether vectors are normalized to length 1.
    pub normalize: bool,
}

/// The origin of a model, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The source, in the form that `kiln pull` takes.
    pub source: Option<String>,
    /// The licence in the model card.
    pub license: Option<String>,
}

/// The result of an int8 calibration, [`Sealing::smooth`](crate::Sealing::smooth).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Smoothed {
    /// SmoothQuant's α in this bundle. `None` if nothing is smoothed.
    pub strength: Option<f64>,
    /// How the scales of activations are chosen.
    #[serde(default, skip_serializing_if = "ActivationScales::is_dynamic")]
    pub scales: ActivationScales,
    /// The number of calibration texts.
    pub texts: usize,
    /// All strengths that were tried.
    pub candidates: Vec<Candidate>,
}

/// How the scales of an int8 bundle's activations are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActivationScales {
    /// One scale per row, from the values of the row.
    #[default]
    Dynamic,
    /// One scale per layer, from the range of its inputs on the calibration texts. Values outside the range are clipped.
    Static,
}

impl ActivationScales {
    fn is_dynamic(&self) -> bool {
        *self == Self::Dynamic
    }
}

/// A strength that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// SmoothQuant's α. `None` without smoothing.
    pub strength: Option<f64>,
    /// Mean squared error of the logits on the calibration texts, compared with the model in f32. If there are no logits,
    /// the error of the vectors.
    pub mean_squared_error: f64,
}

/// Scores on a labelled file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// The name of the metric.
    pub metric: String,
    /// The score of the model in f32.
    pub f32: f64,
    /// The score of the bundle.
    pub bundle: f64,
    /// The number of examples.
    pub examples: usize,
}

impl Check {
    /// How many points (hundredths of the metric) the bundle loses compared with f32. Negative if the bundle is better.
    pub fn loss(&self) -> f64 {
        (self.f32 - self.bundle) * 100.0
    }
}

impl Manifest {
    /// The list of files in the format of `sha256sum`, sorted by name.
    pub fn listing(&self) -> String {
        let mut listing = String::new();
        for (name, FileEntry { sha256, .. }) in &self.files {
            writeln!(listing, "{sha256}  {name}").expect("a string takes all that is written");
        }
        listing
    }

    /// SHA-256 of the listing.
    pub(crate) fn digest(&self) -> String {
        use sha2::{Digest, Sha256};

        hexadecimal(Sha256::digest(self.listing()))
    }
}

/// The task of a bundle without a head, by its name on Hugging Face.
const NO_HEAD: &str = "feature-extraction";

mod task_name {
    use kiln_schema::Task;
    use serde::de::IntoDeserializer;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::NO_HEAD;

    pub fn serialize<S: Serializer>(task: &Option<Task>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(task.map_or(NO_HEAD, Task::name))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Task>, D::Error> {
        let name = String::deserialize(deserializer)?;
        match name.as_str() {
            NO_HEAD => Ok(None),
            name => Task::deserialize(name.into_deserializer()).map(Some),
        }
    }
}

mod precision_name {
    use kiln_kernels::Precision;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(precision: &Precision, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match precision {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
        })
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Precision, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "f32" => Ok(Precision::F32),
            "bf16" => Ok(Precision::Bf16),
            "int8" => Ok(Precision::Int8),
            other => Err(D::Error::unknown_variant(other, &["f32", "bf16", "int8"])),
        }
    }
}
