//! Trains a custom head in Kiln's training loop. The head reads the maximum of each feature over the tokens, and learns to
//! find token 7: `cargo run --release -p kiln-train --example toy_head`
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::{borrow::Cow, ops::ControlFlow, ops::Range};

use burn::{module::Module, tensor::Device, tensor::Tensor};
use kiln_backend::{Backend, Flex};
use kiln_bert::{Bert, BertConfig, Inputs, Linear, Size};
use kiln_heads::{in_batches, inputs};
use kiln_tokenize::{Encoding, lengths, pad};
use kiln_train::{Alone, BatchLoss, Dataset, EvaluationSet, Fingerprint, Fit, Targets, TrainConfig, TrainingSet};

#[derive(Module, Debug)]
struct Finder {
    bert: Bert,
    output: Linear,
}

impl Finder {
    fn forward(&self, inputs: Inputs) -> Tensor<2> {
        self.output.forward(self.bert.forward(inputs).max_dim(1).squeeze_dim(1))
    }
}

impl kiln_train::EncoderModel for Finder {
    fn bert(&self) -> &Bert {
        &self.bert
    }
}

struct Texts(Vec<Encoding>, Targets);

impl Dataset for Texts {
    fn rows(&self) -> usize {
        self.0.len()
    }

    fn lengths(&self, rows: Range<usize>) -> Cow<'_, [usize]> {
        lengths(&self.0[rows]).into()
    }
}

impl TrainingSet for Texts {
    type Model = Finder;

    fn loss(&self, model: &Finder, rows: &[usize], device: &Device) -> BatchLoss {
        self.1.loss(model.forward(inputs(&pad(&self.0, rows, 0), device)), rows, device)
    }
}

impl EvaluationSet<Finder> for Texts {
    type Output = Vec<f32>;

    fn output(&self, model: &Finder, size: usize, device: &Device) -> Vec<f32> {
        in_batches(&lengths(&self.0), size, |rows| model.forward(inputs(&pad(&self.0, rows, 0), device)))
    }

    fn report(&self, logits: &Vec<f32>) -> Result<kiln_eval::SplitReport, kiln_eval::Error> {
        self.1.report(logits)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (device, folder) = (&Flex::device(0), tempfile::tempdir()?);
    // Rows of twelve tokens from a vocabulary of twenty. Every second row has one token 7.
    let token = |row: u32, at: u32| if row.is_multiple_of(2) && at == row % 11 { 7 } else { 8 + row * (31 + at) % 12 };
    let encodings = (0..256).map(|at| Encoding {
        input_ids: (0..12).map(|place| token(at, place)).collect(),
        token_type_ids: vec![0; 12],
        full_length: 12,
        full_length_is_exact: true,
    });
    let labels = kiln_schema::LabelSet::new(["found", "absent"])?;
    let set = &Texts(encodings.collect(), Targets::Labels((0..256).map(|row| row % 2).collect(), labels));
    let config = BertConfig { vocab_size: 20, ..BertConfig::of_size(Size::Tiny) };
    let finder = Finder { bert: config.init(device), output: config.init_linear(128, 2, device) };
    let config = &TrainConfig { epochs: 3, learning_rate: 1e-3, ..TrainConfig::default() };
    let (fingerprint, checkpoints, reduction) = (&Fingerprint::default(), folder.path(), &Alone);
    let fit = Fit { train: set, validation: set, config, fingerprint, device, checkpoints, resume: false, reduction };
    let fitted = fit.run(finder, &mut |_| ControlFlow::Continue(()))?;
    fitted.epochs.iter().for_each(|report| println!("epoch {} {:?}", report.epoch, report.validation));
    Ok(())
}
