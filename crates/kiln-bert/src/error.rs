use std::path::PathBuf;

/// Why a checkpoint could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A file is not valid JSON, or not of the expected structure.
    #[error("{}: invalid JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The position and the reason.
        source: serde_json::Error,
    },
    /// A setting is out of range, contradicts another one, or is not supported.
    #[error("{}: `{field}` is {found}; expected {expected}", path.display())]
    Config {
        /// The config file.
        path: PathBuf,
        /// The key.
        field: String,
        /// Its value.
        found: String,
        /// The allowed values.
        expected: String,
    },
    /// A folder without weights.
    #[error(
        "{}: no weights; looked for model.safetensors, pytorch_model.bin and the .index.json of either",
        folder.display()
    )]
    NoWeights {
        /// The folder.
        folder: PathBuf,
    },
    /// A weights file is damaged, or in a form that Kiln does not read.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The machine does not have the memory for fresh weights.
    #[error("{}: there is not enough memory for {parameters} parameters of 4 bytes each", path.display())]
    Memory {
        /// The config file.
        path: PathBuf,
        /// The number of parameters.
        parameters: u128,
    },
    /// The checkpoint has fewer layers than the config.
    #[error("{}: `{key}` of config.json requires {expected} layers; the checkpoint has {found} layers", path.display())]
    Layers {
        /// The file or folder.
        path: PathBuf,
        /// The config's key.
        key: &'static str,
        /// Layers in the checkpoint.
        found: usize,
        /// Layers in the config.
        expected: usize,
    },
    /// A tensor contains NaN or an infinity.
    #[error("{}: `{name}` holds {value}; expected finite numbers", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// NaN or an infinity.
        value: f32,
    },
    /// The checkpoint lacks tensors that the model needs.
    #[error("{}: the checkpoint lacks {} tensors that the model needs: {}", path.display(), names.len(), names.join(", "))]
    Missing {
        /// The file or folder.
        path: PathBuf,
        /// The names of the tensors.
        names: Vec<String>,
    },
    /// The shape of a tensor differs from the config.
    #[error("{}: `{name}` has the shape {found:?}; by config.json, expected {expected:?}", path.display())]
    Shape {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// The shape that the config gives it.
        expected: Vec<usize>,
    },
}
