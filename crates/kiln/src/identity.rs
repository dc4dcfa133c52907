//! An identifier for everything that a model's predictions depend on.

use kiln_backend::Backend;
use kiln_kernels::slices::Simd;

use crate::fingerprint::{descriptions, sha256, weights_of};
use crate::recipe::Precision;
use crate::{Error, ModelFolders};

/// The version of Kiln, the backend, the precision, the instruction set, and a digest of the model's files. Processes with
/// the same identity give the same predictions.
///
/// # Errors
/// When the model's folder cannot be read.
pub fn model_identity<B: Backend>(folders: ModelFolders<'_>, precision: Option<Precision>) -> Result<String, Error> {
    let digest = || -> anyhow::Result<String> {
        let mut files = weights_of(folders.model)?;
        files.extend(descriptions(folders.model)?);
        if let Some(adapter) = folders.adapter {
            files.extend(weights_of(adapter)?);
            files.extend(descriptions(adapter)?);
        }
        sha256(files)
    };
    let precision = precision.map_or("its precision", Precision::name);
    let version = env!("CARGO_PKG_VERSION");
    let simd = format!("{:?}", Simd::detect());
    Ok(format!("kiln {version}, {}, {precision}, {simd}, model {}", B::NAME, digest()?))
}
