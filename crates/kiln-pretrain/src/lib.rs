//! Pre-training data from raw text: a token store on disk, masks and next sentences that are drawn anew in each epoch, and
//! the hidden states of a teacher.
//!
//! The training loop is in `kiln-train`. This crate implements its [`TrainingSet`](kiln_train::TrainingSet).
//!
//! ```
//! use kiln_dataset::Passage;
//! use kiln_pretrain::TokenStoreConfig;
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../kiln-tokenize/tests/tiny");
//!
//! let tokenizer = kiln_tokenize::Tokenizer::from_folder(folder.as_ref())?;
//! let passages = ["房间", "干净", "房"].map(|text| Ok(Passage::Sentence(text.to_owned())));
//! let passages = passages.into_iter().chain([Ok(Passage::End)]);
//! let store = TokenStoreConfig { folder: std::env::temp_dir(), max_tokens: 4 }.build(passages, &tokenizer)?;
//! assert_eq!((store.documents(), store.tokens(), store.rows()), (1, 5, 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! See `examples/masks.rs`.
#![deny(missing_docs)]

mod token_store;
mod permutation;
mod masking;
mod drawing;
mod alignment;
mod components;
mod teacher_states;
mod distillation;
mod pretraining_set;
mod error;

pub use distillation::Distillation;
pub use drawing::{Drawing, Drawn};
pub use error::Error;
pub use masking::{MaskUnit, Masking, MaskingConfig};
pub use pretraining_set::{PretrainingSet, Tally, split};
pub use teacher_states::{Teacher, TeacherStates, TeacherStatesConfig};
pub use token_store::{TokenRow, TokenStore, TokenStoreConfig};
