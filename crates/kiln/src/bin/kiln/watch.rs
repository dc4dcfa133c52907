//! `--watch`: serves a page on loopback that shows a training while it runs.

use std::sync::{Arc, Mutex, PoisonError};

use kiln_eval::{EpochScores, LivePage};
use kiln_train::{EpochReport, Event, TrainConfig};

use crate::console;

/// The contents of the page, shared with the thread that serves it.
#[derive(Clone, Debug)]
pub struct Watch(Arc<Mutex<LivePage>>);

impl Watch {
    /// Serves the page on any free port, and logs its address.
    pub fn start(title: String) -> Result<Self, kiln_serve::Error> {
        let page = Arc::new(Mutex::new(LivePage { title, ..LivePage::default() }));
        let shown = page.clone();
        let make = Arc::new(move || shown.lock().unwrap_or_else(PoisonError::into_inner).to_html());
        let address = kiln_serve::serve_page(([127, 0, 0, 1], 0).into(), make)?;
        console::log(format_args!("watch the training at http://{address}"));
        Ok(Self(page))
    }

    pub fn show(&self, event: &Event, config: &TrainConfig) {
        let mut page = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { step, total_steps, epochs } => {
                (page.step, page.total_steps) = (*step, *total_steps);
                page.epochs = epochs.iter().map(|report| scores(report, *total_steps, config)).collect();
            }
            Event::Step { step, total_steps, loss, learning_rate, .. } => {
                (page.step, page.total_steps) = (*step, *total_steps);
                (page.loss, page.learning_rate) = (*loss, *learning_rate);
            }
            Event::Epoch(report) => {
                let total_steps = page.total_steps;
                page.epochs.push(scores(report, total_steps, config));
            }
        }
    }
}

fn scores(report: &EpochReport, total_steps: usize, config: &TrainConfig) -> EpochScores {
    EpochScores {
        epoch: report.step as f64 * config.epochs as f64 / total_steps.max(1) as f64,
        train_loss: report.train_loss,
        learning_rate: report.learning_rate,
        gradient_norm: report.gradient_norm,
        validation: report.validation.clone(),
    }
}
