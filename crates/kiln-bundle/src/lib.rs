//! Makes a sealed bundle of a model folder, and loads the model from the bundle.
//! A bundle is a folder with everything that serving needs. Its manifest has the SHA-256 of every file.
//!
//! ```no_run
//! use kiln_backend::{Backend, Flex};
//! use kiln_bundle::{Bundle, SealConfig, verify};
//! use kiln_kernels::Precision;
//!
//! let config = SealConfig { precision: Precision::Int8, ..SealConfig::default() };
//! let device = Flex::device(0);
//! config.seal("runs/hotel".as_ref(), "hotel.bundle".as_ref(), &device)?;
//! let manifest = verify("hotel.bundle".as_ref())?;
//! assert!(manifest.files.contains_key("model.safetensors"));
//! let bundle = Bundle::open("hotel.bundle".as_ref(), &device)?;
//! let predictor = bundle.predictor().expect("the model has a head");
//! assert_eq!(predictor.predict(&[("房间很干净", None)])?.len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! See `examples/bundle.rs`.
#![deny(missing_docs)]

mod manifest;
mod read;
mod origin;
mod vectors;
mod smoothing;
mod weights;
mod seal;
mod smooth;
mod verify;
mod bundle;
mod error;

pub use bundle::{Bundle, Model};
pub use error::Error;
pub use manifest::{ActivationScales, Base, Candidate, Check, FileEntry, MANIFEST, Manifest, Smoothed, Vectors};
pub use seal::{SealConfig, Sealing};
pub use verify::{Difference, DifferenceKind, is_bundle, verify};
