use std::collections::BTreeMap;
use std::fmt::Write;

use kiln_heads::Pooling;
use kiln_kernels::Precision;
use kiln_schema::Task;
use serde::{Deserialize, Serialize};

use crate::verify::hexadecimal;

/// The manifest's name in a bundle.
pub const MANIFEST: &str = "manifest.json";

/// What a bundle is, and the digest of every other file in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of Kiln that made it.
    pub kiln: String,
    /// What the model predicts; none, written `feature-extraction`, for an encoder without a head.
    #[serde(with = "task_name")]
    pub task: Option<Task>,
    /// What the encoder's weights are stored in and its products are computed in: `f32`, `bf16` or `int8`.
    #[serde(with = "precision_name")]
    pub precision: Precision,
    /// The labels in the order of the logits, where the task has any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// How the bundle makes vectors of texts.
    pub vectors: Vectors,
    /// The checkpoint that the model was trained from.
    pub base: Base,
    /// Every file but this one, by name.
    pub files: BTreeMap<String, FileEntry>,
    /// SHA-256 of [`Manifest::listing`], which stands for all files.
    pub sha256: String,
    /// How its int8 was calibrated, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smoothing: Option<Smoothed>,
    /// What the bundle loses against the same model in f32, where that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
}

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
}

/// How a vector is made of a text where nothing else is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vectors {
    /// What a vector is made of.
    pub pooling: Pooling,
    /// Whether vectors have the length 1.
    pub normalize: bool,
}

/// Where a model comes from, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The source, as `kiln pull` takes it.
    pub source: Option<String>,
    /// The licence that its card declares.
    pub license: Option<String>,
}

/// What a calibration of int8 found: [`Sealing::smooth`](crate::Sealing::smooth).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Smoothed {
    /// SmoothQuant's α in this bundle; none where nothing is smoothed.
    pub strength: Option<f64>,
    /// How activations get their scales.
    #[serde(default, skip_serializing_if = "ActivationScales::is_dynamic")]
    pub scales: ActivationScales,
    /// How many texts it was calibrated on.
    pub texts: usize,
    /// Everything that was tried.
    pub candidates: Vec<Candidate>,
}

/// How the activations of an int8 bundle get their scales.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActivationScales {
    /// One for each row, as its values ask for.
    #[default]
    Dynamic,
    /// One for each layer, from the range of what it read on the calibration texts. What is outside of it is cut off.
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
    /// SmoothQuant's α; none where nothing is smoothed.
    pub strength: Option<f64>,
    /// Of the logits on the calibration texts, against those of the model in f32; of the vectors, where there are no logits.
    pub mean_squared_error: f64,
}

/// Scores of one labelled file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// The number that was compared.
    pub metric: String,
    /// Of the model in f32.
    pub f32: f64,
    /// Of the bundle.
    pub bundle: f64,
    /// How many examples.
    pub examples: usize,
}

impl Check {
    /// How many points, hundredths of the metric, the bundle loses against f32; negative where it gains.
    pub fn loss(&self) -> f64 {
        (self.f32 - self.bundle) * 100.0
    }
}

impl Manifest {
    /// The files as `sha256sum` lists them, sorted by name.
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

/// The task of a bundle whose model has no head, by Hugging Face's name of what it is for.
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
