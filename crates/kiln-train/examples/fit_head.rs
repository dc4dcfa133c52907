//! The loop on a toy: rows of one number, two labels, a linear head: `cargo run --release -p kiln-train --example fit_head`
//! It shows what a [`TrainingSet`] is: anything that can give a loss for some of its rows, and an output for all.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::ops::ControlFlow;

use burn::tensor::{Device, Tensor, TensorData};
use kiln_backend::{Backend, Flex};
use kiln_eval::SplitReport;
use kiln_heads::{ClassificationHead, ClassificationHeadConfig};
use kiln_predict::in_batches;
use kiln_schema::LabelSet;
use kiln_train::{BatchLoss, Event, Fit, Targets, TrainConfig, TrainingSet};

struct Signs {
    numbers: Vec<f32>,
    lengths: Vec<usize>,
    targets: Targets,
}

impl Signs {
    fn new(numbers: Vec<f32>, labels: LabelSet) -> Self {
        let signs = numbers.iter().map(|number| usize::from(*number > 0.0)).collect();
        Self { lengths: vec![1; numbers.len()], numbers, targets: Targets::Labels(signs, labels) }
    }
}

impl Signs {
    fn logits(&self, head: &ClassificationHead, rows: &[usize], device: &Device) -> Tensor<2> {
        let numbers: Vec<f32> = rows.iter().map(|&row| self.numbers[row]).collect();
        head.forward(Tensor::from_data(TensorData::new(numbers, [rows.len(), 1]), device))
    }
}

impl TrainingSet for Signs {
    type Model = ClassificationHead;
    type Output = Vec<f32>;

    fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    fn loss(&self, head: &ClassificationHead, rows: &[usize], device: &Device) -> BatchLoss {
        self.targets.loss(self.logits(head, rows, device), rows, device)
    }

    fn output(&self, head: &ClassificationHead, batch_size: usize, device: &Device) -> Vec<f32> {
        in_batches(&self.lengths, batch_size, |rows| self.logits(head, rows, device))
    }

    fn report(&self, logits: &Vec<f32>) -> SplitReport {
        self.targets.report(logits)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (device, folder, labels) = (Flex::device(0), tempfile::tempdir()?, LabelSet::new(["negative", "positive"])?);
    let set = Signs::new((-50..50).map(|i| (i as f32 + 0.5) / 10.0).collect(), labels);
    let config = TrainConfig { epochs: 5, learning_rate: 0.05, ..TrainConfig::default() };
    let (hidden_layers, num_labels) = (vec![], 2);
    let head =
        ClassificationHeadConfig { hidden_size: 1, hidden_layers, num_labels, dropout: 0.0, initializer_range: 0.02 };
    let (checkpoints, resume) = (folder.path(), false);
    let fit = Fit { train: &set, validation: &set, config: &config, device: &device, checkpoints, resume };
    fit.run(head.init(&device), &mut |event| {
        if let Event::Epoch(report) = event {
            println!(
                "epoch {} loss {:.3} accuracy {:.3}",
                report.epoch, report.train_loss, report.validation["accuracy"]
            );
        }
        ControlFlow::Continue(())
    })?;
    Ok(())
}
