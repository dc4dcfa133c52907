//! A task from files to answers, through the binary: one test for each.

mod adapters;
mod support;

mod sequences;
mod tags;
mod answers;
mod distillation;
mod families;
