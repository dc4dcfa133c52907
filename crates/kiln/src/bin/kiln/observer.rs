//! Shows a run to the user: a line for each stage, and progress bars or lines for long operations.

use std::fmt;
use std::ops::ControlFlow;

use kiln::Observer;
use kiln_train::{EpochReport, Event, TrainConfig};

use crate::console::{self, Progress};
use crate::dashboard::Dashboard;
use crate::interrupt::{Leaving, leave_when_interrupted, unless_interrupted};
use crate::transfers::Transfers;
#[cfg(feature = "serve")]
use crate::watch::Watch;

/// Shows a run on standard error.
#[derive(Debug, Default)]
pub struct Console {
    progress: Option<Progress>,
    transfers: Option<Downloads>,
    /// Replaces the progress bar of a training.
    dashboard: Option<Dashboard>,
    #[cfg(feature = "serve")]
    watch: Option<Watch>,
}

/// The downloads in progress.
#[derive(Debug)]
struct Downloads {
    transfers: Transfers,
    /// While this exists, a signal ends the process at once.
    _leaving: Option<Leaving>,
}

/// The message when a signal ends a download.
const KEPT: &str = "the part that is downloaded is kept, and the next download continues from there";

impl Console {
    /// Shows a training on a dashboard, if one is given.
    pub fn with_dashboard(mut self, dashboard: Option<Dashboard>) -> Self {
        self.dashboard = dashboard;
        self
    }

    /// Shows a training also on a web page, if one is given.
    #[cfg(feature = "serve")]
    pub fn with_page(mut self, watch: Option<Watch>) -> Self {
        self.watch = watch;
        self
    }

    /// Removes the bars and the dashboard.
    fn settle(&mut self) {
        self.transfers = None;
        if let Some(dashboard) = &mut self.dashboard {
            dashboard.leave();
        }
        if let Some(progress) = self.progress.take() {
            progress.finish();
        }
    }

    /// Writes a log line above the bar or the dashboard.
    fn log(&mut self, line: &str) {
        match (&mut self.dashboard, &self.progress) {
            (Some(dashboard), _) => dashboard.log(line),
            (None, Some(progress)) => progress.log(line),
            (None, None) => console::log(line),
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.settle();
    }
}

impl Observer for Console {
    fn stage(&mut self, name: &str, by: &str, text: &dyn fmt::Display) {
        self.settle();
        console::stage(name, by, text);
    }

    fn warning(&mut self, text: &dyn fmt::Display) {
        self.settle();
        console::warn(text);
    }

    fn note(&mut self, text: &dyn fmt::Display) {
        self.settle();
        console::log(text);
    }

    fn download(&mut self, progress: &kiln_hub::Progress<'_>) {
        // Without a handler, a signal ends the process too, but without the message.
        let start = || Downloads { transfers: Transfers::default(), _leaving: leave_when_interrupted(KEPT).ok() };
        self.transfers.get_or_insert_with(start).transfers.show(progress);
    }

    fn rows(&mut self, stage: &'static str, done: usize, total: usize) {
        self.progress.get_or_insert_with(|| Progress::new(stage, total)).set(done, String::new);
    }

    fn training(&mut self, event: &Event, config: &TrainConfig) {
        #[cfg(feature = "serve")]
        if let Some(watch) = &self.watch {
            watch.show(event, config);
        }
        if let Event::Epoch(report) = event {
            self.log(&epoch_line(report, config));
        }
        if let Some(dashboard) = &mut self.dashboard {
            dashboard.show(event, config);
            return;
        }
        match event {
            Event::Started { .. } => self.settle(),
            Event::Step { step, total_steps, loss, learning_rate, .. } => {
                let progress = self.progress.get_or_insert_with(|| Progress::new("train", *total_steps));
                progress.set(*step, || format!("loss {loss:.4} rate {learning_rate:.2e}"));
            }
            Event::Epoch(_) => {}
        }
    }

    fn control(&mut self) -> ControlFlow<()> {
        unless_interrupted()
    }
}

/// Shows nothing, because another process shows the run.
#[derive(Debug)]
pub struct Silent;

impl Observer for Silent {
    fn control(&mut self) -> ControlFlow<()> {
        unless_interrupted()
    }
}

/// Maximum width of an epoch's line.
const COLUMNS: usize = 100;

/// A validation in one line: both losses, the metric that selects the best checkpoint, and as many other numbers as fit.
fn epoch_line(report: &EpochReport, config: &TrainConfig) -> String {
    let EpochReport { epoch, step, train_loss, train_accuracy, validation, .. } = report;
    let is_needed = |name: &str| name == "loss" || name == config.metric.name();
    let (needed, others): (Vec<_>, Vec<_>) = validation.iter().partition(|(name, _)| is_needed(name));
    let shown = |(name, number): (&String, &f64)| format!(" {name} {number:.4}");
    let step = if config.eval_steps == 0 { String::new() } else { format!(" update {step}") };
    let mut train = format!("epoch {epoch}/{}{step}  train loss {train_loss:.4}", config.epochs);
    // The loss comes first.
    let (loss, metric): (Vec<_>, Vec<_>) = needed.into_iter().partition(|(name, _)| *name == "loss");
    let mut validation: String = loss.into_iter().chain(metric).map(shown).collect();
    let end = format!("  {:.1} s{}", report.seconds, if report.best { "  best" } else { "" });
    let mut room = COLUMNS.saturating_sub(train.len() + "  validation".len() + validation.len() + end.len());
    let mut add = |part: &mut String, more: String| {
        if more.len() <= room {
            room -= more.len();
            *part += &more;
        }
    };
    if let Some(accuracy) = train_accuracy {
        add(&mut train, format!(" accuracy {accuracy:.4}"));
    }
    for number in others {
        add(&mut validation, shown(number));
    }
    format!("{train}  validation{validation}{end}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kiln_train::Metric;

    use super::*;

    fn report(names: &[&str]) -> EpochReport {
        EpochReport {
            epoch: 100,
            step: 1_000,
            train_loss: 12.3456,
            train_accuracy: Some(0.5),
            learning_rate: 1e-5,
            gradient_norm: 1.0,
            seconds: 12_345.6,
            train_seconds: 12_000.0,
            best: true,
            validation: names.iter().map(|name| ((*name).to_owned(), 0.125)).collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn an_epoch_s_line_fits_and_has_the_metric_that_picks_the_best() {
        let tags = ["accuracy", "entity_f1", "entity_precision", "entity_recall", "loss", "macro_f1"];
        let masked = ["loss", "masked_accuracy", "next_sentence_accuracy", "perplexity"];
        for (names, metric) in [(&tags[..], Metric::EntityF1), (&masked, Metric::Loss), (&["loss", "f1"], Metric::F1)] {
            let config = TrainConfig { epochs: 100, metric, ..TrainConfig::default() };
            let line = epoch_line(&report(names), &config);
            assert!(line.len() <= COLUMNS, "{} columns: {line}", line.len());
            assert!(line.contains(&format!(" {} 0.1250", metric.name())) && line.ends_with("s  best"), "{line}");
        }
        let config = TrainConfig { metric: Metric::F1, ..TrainConfig::default() };
        assert_eq!(
            epoch_line(&report(&["exact_match", "f1", "loss"]), &config),
            "epoch 100/3  train loss 12.3456 accuracy 0.5000  validation loss 0.1250 f1 0.1250  12345.6 s  best"
        );
    }
}
