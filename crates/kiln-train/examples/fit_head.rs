//! Trains a linear head on toy data with one feature and two labels: `cargo run --release -p kiln-train --example fit_head`
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::ops::ControlFlow;

use kiln_backend::{Backend, Flex};
use kiln_heads::ClassificationHeadConfig;
use kiln_schema::LabelSet;
use kiln_train::{Alone, Event, Features, Fingerprint, Fit, Targets, TrainConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (device, folder) = (Flex::device(0), tempfile::tempdir()?);
    let numbers: Vec<f32> = (-50..50).map(|i| (i as f32 + 0.5) / 10.0).collect();
    let signs = numbers.iter().map(|number| usize::from(*number > 0.0)).collect();
    let targets = Targets::Labels(signs, LabelSet::new(["negative", "positive"])?);
    let set = Features::new(numbers, 1, targets);

    let config = TrainConfig { epochs: 5, learning_rate: 0.05, ..TrainConfig::default() };
    let head = ClassificationHeadConfig {
        hidden_size: 1,
        hidden_layers: vec![],
        num_labels: 2,
        dropout: 0.0,
        initializer_range: 0.02,
    };
    let fit = Fit {
        train: &set,
        validation: &set,
        config: &config,
        fingerprint: &Fingerprint::default(),
        device: &device,
        checkpoints: folder.path(),
        resume: false,
        reduction: &Alone,
    };
    fit.run(head.init(&device), &mut |event| {
        if let Event::Epoch(report) = event {
            println!("epoch {} loss {:.3} {:?}", report.epoch, report.train_loss, report.validation);
        }
        ControlFlow::Continue(())
    })?;
    Ok(())
}
