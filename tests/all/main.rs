//! Tests across crates, with one topic per file.

mod assets;
mod tiny;
mod classifier;
mod parameters;
mod training_parity;
mod training;
mod distillation;
mod checkpoints;
mod tags;
mod families;
mod adapters;
mod attributions;
mod reference_data;
mod tokenizers;
mod offsets;
mod readme;
