//! The stages of a training. Each stage takes the result of the one before it: [`settle`](settle::settle) → [`read`](read)
//! → encode → model → [`fit`](fit::fit) → [`save`](save::save).
//!
//! The differences between tasks are in the trait [`Stages`], which each file in `tasks` implements.

pub(crate) mod settle;
pub(crate) mod read;
pub(crate) mod model;
pub(crate) mod board;
pub(crate) mod fits;
pub(crate) mod fit;
pub(crate) mod features;
pub(crate) mod teacher;
pub(crate) mod explain;
pub(crate) mod save;

use kiln_heads::{Network, Pretrained, TaskModel};
use kiln_schema::Splits;

use crate::{Fold, Observer, Trained};
use fit::Fitted;
use settle::Plan;
use teacher::Teacher;

/// The parts of each stage that depend on the task.
pub(crate) trait Stages {
    /// The rows of all splits.
    type Rows;
    /// The encoded rows.
    type Encoded;
    /// The model that is trained.
    type Model;

    /// Reads the files of all splits.
    fn read(&self, plan: &Plan<'_>, observer: &mut dyn Observer) -> anyhow::Result<Self::Rows>;

    /// Tokenizes and audits the rows.
    fn encode(
        &self,
        plan: &Plan<'_>,
        rows: &Self::Rows,
        observer: &mut dyn Observer,
    ) -> anyhow::Result<Tokens<Self::Encoded>>;

    /// The rows with these indices.
    fn pick(&self, rows: &Self::Rows, picked: &Splits<Vec<usize>>) -> Self::Rows;

    /// Holds out one fold of the training split as the validation split.
    fn hold_out(
        &self,
        rows: Self::Rows,
        encoded: Self::Encoded,
        fold: Fold,
    ) -> anyhow::Result<(Self::Rows, Self::Encoded)>;

    /// Puts a new head on the checkpoint's encoder.
    fn model(&self, plan: &Plan<'_>, rows: &Self::Rows) -> anyhow::Result<Described<Self::Model>>;

    /// Trains, and evaluates the best checkpoint on the splits that were not trained on.
    fn fit(
        &self,
        plan: &Plan<'_>,
        rows: &Self::Rows,
        encoded: Self::Encoded,
        learner: Learner<Self::Model>,
        observer: &mut dyn Observer,
    ) -> anyhow::Result<Fitted<Self::Model>>;

    /// The trained model with the labels and settings that are saved with it.
    fn network(&self, rows: Self::Rows, model: Self::Model) -> Network;
}

/// Encoded rows.
pub(crate) struct Tokens<E> {
    pub encoded: E,
    /// Number of training rows.
    pub num_rows: usize,
    /// Number of tokens of the longest training row.
    pub longest: usize,
    /// The audit's findings, one per line.
    pub audit: String,
    /// For each item, the number of tokens that the model reads.
    pub tokens: Splits<Vec<usize>>,
}

/// A model with a new head.
pub(crate) struct Described<M> {
    pub pretrained: Pretrained<M>,
    /// Number of parameters of the encoder.
    pub encoder_parameters: usize,
    /// A description of the head, in one line.
    pub head: String,
    /// The teacher of a distillation, if there is one.
    pub teacher: Option<Teacher<M>>,
}

/// The model that is trained, and its teacher if it has one.
pub(crate) struct Learner<M> {
    pub model: M,
    pub teacher: Option<Teacher<M>>,
}

/// Runs all stages of a task.
pub(crate) fn run<T: Stages>(task: &T, plan: &Plan<'_>, observer: &mut dyn Observer) -> anyhow::Result<Trained> {
    let rows = task.read(plan, observer)?;
    let Tokens { encoded, num_rows, longest, audit, .. } = task.encode(plan, &rows, observer)?;
    let (rows, encoded) = match plan.fold {
        Some(fold) => task.hold_out(rows, encoded, fold)?,
        None => (rows, encoded),
    };
    let described = task.model(plan, &rows)?;
    model::describe(plan, &described, longest, observer);
    fits::check_fits(plan, &described, longest, num_rows)?;
    plan.begin()?;
    let Pretrained { model, config, .. } = described.pretrained;
    let learner = Learner { model, teacher: described.teacher };
    let fitted = task.fit(plan, &rows, encoded, learner, observer)?;
    let network = task.network(rows, fitted.model);
    save::save(plan, TaskModel { network, config }, fitted.results, &audit, observer)
}
