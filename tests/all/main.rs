//! What crosses crates, one concern a file.

mod assets;
mod tiny;
mod parameters;
mod forward_parity;
mod training_parity;
mod training;
mod backends;
mod checkpoints;
mod tags;
mod reference_data;
mod tokenizers;
mod readme;
