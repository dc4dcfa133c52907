//! Metadata in the files of a model folder.

use std::path::Path;

use kiln_bundle::Vectors;
use kiln_kernels::Precision;
use serde_json::Value;

use super::Details;

pub fn details(folder: &Path, precision: Precision, vectors: Vectors) -> Details {
    let config = json(&folder.join("config.json"));
    let precision = precision_name(precision);
    let source = config.get("_name_or_path").and_then(Value::as_str).filter(|name| !name.is_empty());
    Details { precision, vectors, sha256: None, source: source.map(str::to_owned), license: None }
}

pub fn precision_name(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
        Precision::Int8 => "int8",
    }
}

/// Reads a JSON file. A missing or damaged file counts as `null`.
fn json(path: &Path) -> Value {
    let bytes = kiln_files::read_if_present(path).ok().flatten().unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}
