//! What a user sees of a training under way: a bar or lines, and `metrics.jsonl`.

use std::ops::ControlFlow;

use kiln_train::{End, EpochReport, Event, TrainConfig};

use crate::console::{self, Interrupted, Progress, stage};
use crate::run_folder::RunFolder;

/// Shows the events of a training, and writes its `metrics.jsonl`.
pub struct Observer<'a> {
    folder: &'a RunFolder,
    config: &'a TrainConfig,
    progress: Option<Progress>,
    /// Updates made before this training went on.
    resumed_at: usize,
    epochs: Vec<EpochReport>,
    failed: Option<anyhow::Error>,
}

impl<'a> Observer<'a> {
    pub fn new(folder: &'a RunFolder, config: &'a TrainConfig) -> Self {
        Self { folder, config, progress: None, resumed_at: 0, epochs: Vec::new(), failed: None }
    }

    /// Breaks once the user interrupts the training, or `metrics.jsonl` cannot be written.
    pub fn observe(&mut self, event: Event) -> ControlFlow<()> {
        match event {
            Event::Started { step, total_steps, epochs } => {
                if step > 0 {
                    let epochs = epochs.len();
                    stage(
                        "resume",
                        "kiln-train",
                        format_args!("{step} of {total_steps} updates and {epochs} epochs are done"),
                    );
                }
                self.resumed_at = step;
                self.epochs = epochs;
                self.write_metrics();
            }
            Event::Step { step, total_steps, loss, learning_rate, .. } => {
                let progress = self.progress.get_or_insert_with(|| Progress::new("train", total_steps));
                progress.set(step, || format!("loss {loss:.4} rate {learning_rate:.2e}"));
            }
            Event::Epoch(report) => {
                let line = epoch_line(&report, self.config);
                match &self.progress {
                    Some(progress) => progress.log(&line),
                    None => console::log(line),
                }
                self.epochs.push(report);
                self.write_metrics();
            }
        }
        if self.failed.is_some() { ControlFlow::Break(()) } else { console::unless_interrupted() }
    }

    fn write_metrics(&mut self) {
        if let Err(error) = self.folder.write_metrics(&self.epochs) {
            self.failed.get_or_insert(error);
        }
    }

    /// The last words on a training that ended after `steps` updates.
    pub fn finish(self, steps: usize, end: End) -> anyhow::Result<()> {
        if let Some(progress) = &self.progress {
            progress.finish();
        }
        if let Some(error) = self.failed {
            return Err(error);
        }
        let note = match end {
            End::Interrupted => {
                let folder = self.folder.path.display();
                let saved = format!("{steps} updates are saved; continue with --resume --out {folder}");
                return Err(Interrupted(saved).into());
            }
            _ if self.resumed_at > 0 && self.resumed_at == steps => {
                "this run was complete: no further update was made, and its best epoch is tested again".to_owned()
            }
            End::Complete => return Ok(()),
            End::NoImprovement => {
                let patience = self.config.early_stopping_patience;
                format!("stopped early: {} did not improve for {patience} epochs", self.config.metric.name())
            }
            End::OutOfTime => format!("stopped after {} hours, as train.max_hours says", self.config.max_hours),
        };
        stage("", "kiln-train", note);
        Ok(())
    }
}

/// The most columns of an epoch's line.
const COLUMNS: usize = 100;

/// An epoch in one line: both losses, the metric that picks the best epoch, and of the other numbers those that fit.
fn epoch_line(report: &EpochReport, config: &TrainConfig) -> String {
    let EpochReport { epoch, train_loss, train_accuracy, validation, .. } = report;
    let is_needed = |name: &str| name == "loss" || name == config.metric.name();
    let (needed, others): (Vec<_>, Vec<_>) = validation.iter().partition(|(name, _)| is_needed(name));
    let shown = |(name, number): (&String, &f64)| format!(" {name} {number:.4}");
    let mut train = format!("epoch {epoch}/{}  train loss {train_loss:.4}", config.epochs);
    // The loss comes first, as everywhere.
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
            train_loss: 12.3456,
            train_accuracy: Some(0.5),
            learning_rate: 1e-5,
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
