//! One test for each task, from files to predictions, through the binary.

mod adapters;
mod support;

mod sequences;
mod tags;
mod answers;
mod distillation;
mod families;
