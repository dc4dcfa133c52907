use std::fmt;
use std::ops::ControlFlow;

use kiln_train::{Event, TrainConfig};

/// What a caller learns while a run goes on. Every method may be left out; `()` observes nothing.
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
    /// A stage has a result. `name` is the stage's, or empty when the line continues the one before; `by` is the crate
    /// that did the work.
    fn stage(&mut self, _name: &str, _by: &str, _text: &dyn fmt::Display) {}

    /// Something that should not be overlooked.
    fn warning(&mut self, _text: &dyn fmt::Display) {}

    /// Something worth a line of a log.
    fn note(&mut self, _text: &dyn fmt::Display) {}

    /// A download goes on.
    fn download(&mut self, _progress: &kiln_hub::Progress<'_>) {}

    /// So many rows of a stage are done.
    fn rows(&mut self, _stage: &'static str, _done: usize, _total: usize) {}

    /// The training has begun, made an update, or ended an epoch.
    fn training(&mut self, _event: &Event, _config: &TrainConfig) {}

    /// Whether to go on. It is asked after each update; a training that is broken off is saved first.
    fn control(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

impl Observer for () {}

/// Warns of encoder layers in a checkpoint's weights that its config leaves out: the model is smaller than its file.
pub fn warn_of_layers(unused: &[String], observer: &mut dyn Observer) {
    let layers = kiln_bert::layers(unused.iter().map(String::as_str));
    if layers > 0 {
        observer.warning(&format_args!(
            "the weights have {layers} encoder layers more than `num_hidden_layers` in config.json; they are not used"
        ));
    }
}
