//! One file for each command. `train` has the three commands that train, and `outcome` prints their results.

pub mod pull;
pub mod data;
pub mod suspects;
pub mod train;
mod outcome;
pub mod eval;
pub mod compare;
pub mod forecast;
pub mod sweep;
pub mod predict;
mod prompt;
pub mod embed;
pub mod merge;
#[cfg(feature = "serve")]
pub mod serve;
#[cfg(feature = "cluster")]
pub mod cluster;
pub mod vocabulary;
pub mod tokenize;
pub mod bundle;
