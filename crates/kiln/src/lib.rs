//! Fine-tune, evaluate and run BERT models: the library behind the `kiln` command.
//!
//! ```no_run
//! use kiln::{Recipe, RunOptions};
//! use kiln_backend::Flex;
//!
//! let recipe = Recipe::load("recipe.toml".as_ref(), &[])?;
//! let trained = kiln::train::<Flex>(&recipe, &RunOptions::default(), &mut ())?;
//! println!("{:?}", trained.report.splits);
//! let predictions = trained.predictor()?.predict(&[("房间很干净，服务也好", None)])?;
//! println!("{predictions:?}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`Recipe`] holds every setting of a run. [`train`] runs all stages: it fetches the checkpoint and the data, reads and
//! tokenizes the rows, trains and validates after each epoch, evaluates the best checkpoint, and writes the run's folder.
//! [`evaluate`] scores a model on a labelled file, [`bundle`] makes a bundle of it for serving, [`audit`] checks a data set
//! for problems, and [`suspects()`] finds labels that are likely wrong. [`sweep()`] trains with many settings. An
//! [`Observer`] receives progress and can stop a run.
//!
//! The backend is a type parameter, one of the types in `kiln_backend`. [`kiln_predict::Predictor`] makes predictions and
//! needs only a model's folder. Each stage uses a crate that can also be used without this one: `kiln-hub` downloads,
//! `kiln-dataset` reads and splits, `kiln-tokenize` encodes, `kiln-bert` and `kiln-heads` are the model, `kiln-train` is
//! the training loop, and `kiln-eval` makes the report.
//!
//! See `examples/fine_tune.rs`.
#![deny(missing_docs)]

pub mod recipe;
pub mod environment;
pub mod fetch;
mod error;
mod observer;
mod fingerprint;
mod identity;
mod memory;
mod tensorboard;
mod ranks;
mod forecast;
mod stages;
mod tasks;
mod training;
mod evaluation;
mod bundling;
mod data;
mod suspects;
mod sweep;

pub use bundling::{
    BundleOptions, CheckOptions, ModelFolders, bundle, check_adapter, open_embedder, open_predictor, stored_vectors,
};
pub use data::{Audited, WrittenSplit, audit, check_leaks, split};
pub use error::{Error, ErrorKind, Interrupted, UsageError};
pub use evaluation::{Evaluated, evaluate, recipe_beside};
pub use forecast::{Forecast, Seconds, forecast};
pub use identity::model_identity;
pub use observer::{Observer, warn_of_layers};
pub use recipe::{Recipe, RecipeError};
pub use suspects::{Neighbour, Suspect, Suspects, suspects};
pub use sweep::{Candidate, Run, Swept, sweep};
pub use training::{Fold, RunOptions, Trained, train, train_together};
