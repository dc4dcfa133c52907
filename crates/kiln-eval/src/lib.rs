//! Evaluation reports from logits and targets: scores for each split, an HTML page, and the most confident mistakes.
//!
//! This crate computes and formats; the caller writes the files.
//!
//! ```
//! use kiln_eval::evaluate;
//! use kiln_schema::LabelSet;
//!
//! let labels = LabelSet::new(["negative", "positive"])?;
//! let logits = [2.0, -1.0, 0.5, 0.1, -3.0, 1.0];
//! let report = evaluate(&logits, &[0, 1, 1], &labels)?;
//! assert_eq!((report.examples, report.score("accuracy")), (3, Some(2.0 / 3.0)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! See `examples/report.rs`.
#![deny(missing_docs)]

mod error;
mod split_report;
mod confusions;
mod evaluate;
mod calibration;
mod tags;
mod tsv;
mod mistakes;
mod report;
mod judged;
mod by_length;
mod comparison;
mod charts;
mod calibration_page;
mod in_context;
mod errors_section;
mod html;
mod live_page;
mod sweep_page;

pub use by_length::{ByLength, LengthBin};
pub use calibration::{CalibrationReport, CalibrationScores, Coverage};
pub use comparison::Comparison;
pub use confusions::{Confusions, LabelConfusion, MATRIX_LABELS};
pub use error::Error;
pub use evaluate::{
    Counts, evaluate, evaluate_answers, evaluate_masked, evaluate_numbers, evaluate_sets, evaluate_sets_at,
};
pub use html::{EpochScores, Page};
pub use in_context::in_context;
pub use judged::Judged;
pub use live_page::LivePage;
pub use mistakes::{Mistake, mistakes, to_tsv};
pub use report::{RanksReport, Report, TrainReport};
pub use split_report::{
    AnswerScores, LabelReport, LabelScores, LabelSetScores, MaskedScores, NumberScores, Reliability, Scores,
    SpanScores, SplitReport, TagScores, ThresholdScores,
};
pub use sweep_page::SweepPage;
pub use tags::{TagSet, evaluate_tags};
pub use tsv::tsv;
