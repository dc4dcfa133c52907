//! One file per command; `data` and `train` have what several share.

pub mod pull;
pub mod data;
pub mod train;
pub mod pipeline;
pub mod eval;
pub mod predict;
mod prompt;
pub mod embed;
pub mod pretrain;
pub mod vocabulary;
pub mod tokenize;
