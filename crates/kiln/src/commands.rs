//! A command a file; what several share stands in `data` and `train`.

pub mod pull;
pub mod data;
pub mod train;
pub mod pipeline;
pub mod eval;
pub mod predict;
pub mod embed;
pub mod pretrain;
pub mod vocabulary;
