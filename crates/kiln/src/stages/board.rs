//! TensorBoard logs of a training.

use std::path::PathBuf;

use anyhow::Context;
use kiln_train::{EpochReport, Event};

use super::settle::Plan;
use crate::tensorboard::EventFile;

/// Writes event files into a run's folder, if the recipe enables them.
pub(crate) struct Board {
    /// The folder of the event files; `None` writes nothing.
    folder: Option<PathBuf>,
    /// The event file of this start of the training.
    file: Option<EventFile>,
}

impl Board {
    pub fn new(plan: &Plan<'_>) -> Self {
        let is_wanted = plan.recipe.train.tensorboard && plan.is_first();
        Self { folder: is_wanted.then(|| plan.folder.path.join("tensorboard")), file: None }
    }

    /// Writes the numbers of an event.
    pub fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let failed = || format!("{}: cannot be written", folder.display());
        match (event, &mut self.file) {
            (Event::Started { step, .. }, file) => {
                *file = Some(EventFile::create(folder, *step).with_context(failed)?);
                Ok(())
            }
            (_, None) => Ok(()),
            (Event::Step { step, loss, gradient_norm, learning_rate, .. }, Some(file)) => {
                let scalars = [
                    ("train/loss", *loss),
                    ("train/gradient_norm", *gradient_norm),
                    ("train/learning_rate", *learning_rate),
                ];
                file.add(*step, scalars).with_context(failed)
            }
            (Event::Epoch(EpochReport { step, validation, .. }), Some(file)) => {
                let named: Vec<(String, f64)> =
                    validation.iter().map(|(name, score)| (format!("validation/{name}"), *score)).collect();
                file.add(*step, named.iter().map(|(name, score)| (name.as_str(), *score))).with_context(failed)
            }
        }
    }
}
