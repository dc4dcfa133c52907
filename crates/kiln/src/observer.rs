use std::fmt;
use std::ops::ControlFlow;

use kiln_train::{Event, TrainConfig};

/// Receives the progress of a run, and can stop it. Every method has a default that does nothing, and `()` ignores
/// everything.
///
/// ```
/// struct Epochs;
///
/// impl kiln::Observer for Epochs {
///     fn training(&mut self, event: &kiln_train::Event, _: &kiln_train::TrainConfig) {
///         if let kiln_train::Event::Epoch(report) = event {
///             println!("{} {:.4}", report.epoch, report.validation["accuracy"]);
///         }
///     }
/// }
/// ```
pub trait Observer: Send {
    /// Reports a result of a stage. `name` is the name of the stage, or empty when the line continues the one before. `by`
    /// is the crate that did the work.
    fn stage(&mut self, _name: &str, _by: &str, _text: &dyn fmt::Display) {}

    /// Reports a problem that the user should know about.
    fn warning(&mut self, _text: &dyn fmt::Display) {}

    /// Reports a detail for the log.
    fn note(&mut self, _text: &dyn fmt::Display) {}

    /// Reports the progress of a download.
    fn download(&mut self, _progress: &kiln_hub::Progress<'_>) {}

    /// Reports how many rows of a stage are done.
    fn rows(&mut self, _stage: &'static str, _done: usize, _total: usize) {}

    /// Reports the start of the training, an update, or the end of an epoch.
    fn training(&mut self, _event: &Event, _config: &TrainConfig) {}

    /// Whether to continue. It is called after each update. A training is saved before it stops.
    fn control(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

impl Observer for () {}

/// Warns when a checkpoint's weights have more encoder layers than its config, so that some are not used.
pub fn warn_of_layers(unused: &[String], observer: &mut dyn Observer) {
    let layers = kiln_bert::layers(unused.iter().map(String::as_str));
    if layers > 0 {
        observer.warning(&format_args!(
            "the weights have {layers} encoder layers more than `num_hidden_layers` in config.json; they are not used"
        ));
    }
}
