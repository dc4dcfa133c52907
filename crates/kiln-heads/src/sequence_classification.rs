use std::path::Path;

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig};
use burn::tensor::{Device, Tensor};
use kiln_bert::{Bert, Inputs, Linear, MOST_PARAMETERS};

use crate::pooling::pool;
use crate::{Error, Pooling};

/// The shape of a [`ClassificationHead`].
#[derive(Clone, Debug, PartialEq)]
pub struct ClassificationHeadConfig {
    /// Width of what it reads.
    pub hidden_size: usize,
    /// Widths of the fully connected layers before the output layer, each followed by tanh.
    pub hidden_layers: Vec<usize>,
    /// Labels: the width of the logits.
    pub num_labels: usize,
    /// Dropout probability before each layer.
    pub dropout: f64,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
}

impl ClassificationHeadConfig {
    /// Whether its widths are widths, and the machine can give the memory that fresh weights take; `path` is for the
    /// error alone.
    ///
    /// # Errors
    /// When one of them is 0, or all make more parameters than the machine has memory for.
    pub fn check_fresh(&self, path: &Path) -> Result<(), Error> {
        let widths = || [self.hidden_size].into_iter().chain(self.hidden_layers.iter().copied());
        let outputs = self.hidden_layers.iter().copied().chain([self.num_labels]);
        let layers = widths().zip(outputs).map(|(input, output)| (input as u128 + 1).saturating_mul(output as u128));
        let parameters = layers.fold(0u128, u128::saturating_add);
        let expected = match self.hidden_layers.contains(&0) {
            true => "widths of at least 1".to_owned(),
            false if parameters > MOST_PARAMETERS => {
                format!("layers of at most {MOST_PARAMETERS} parameters in all; they make {parameters}")
            }
            false => return Ok(kiln_bert::reserve(path, parameters)?),
        };
        let found = format!("{:?}", self.hidden_layers);
        let field = "hidden_layers".to_owned();
        Err(kiln_bert::Error::Config { path: path.to_owned(), field, found, expected }.into())
    }

    /// A head with fresh weights: normal, biases zero.
    pub fn init(&self, device: &Device) -> ClassificationHead {
        let linear = |d_input, d_output| Linear::new([d_input, d_output], self.initializer_range, device);
        let mut width = self.hidden_size;
        let mut hidden_layers = Vec::with_capacity(self.hidden_layers.len());
        for &d_output in &self.hidden_layers {
            hidden_layers.push(linear(width, d_output));
            width = d_output;
        }
        ClassificationHead {
            dropout: DropoutConfig::new(self.dropout).init(),
            hidden_layers,
            classifier: linear(width, self.num_labels),
        }
    }
}

/// Fully connected layers on a pooled output: `classifier(… tanh(hidden(x)) …)`, dropout before each.
#[derive(Module, Debug)]
pub struct ClassificationHead {
    dropout: Dropout,
    /// Each followed by tanh.
    pub hidden_layers: Vec<Linear>,
    /// The output layer.
    pub classifier: Linear,
}

impl ClassificationHead {
    /// # Shapes
    /// - `pooled_output`: `[batch, hidden]`
    /// - output, `logits`: `[batch, num_labels]`
    pub fn forward(&self, pooled_output: Tensor<2>) -> Tensor<2> {
        let mut x = pooled_output;
        for layer in &self.hidden_layers {
            x = layer.forward(self.dropout.forward(x)).tanh();
        }
        self.classifier.forward(self.dropout.forward(x))
    }
}

/// BERT and a classification head on one pooled vector of each row. Pairs of texts work by the same head.
#[derive(Module, Debug)]
pub struct SequenceClassifier {
    /// The encoder.
    pub bert: Bert,
    /// The head.
    pub head: ClassificationHead,
    /// What the head reads.
    #[module(skip)]
    pub pooling: Pooling,
}

impl SequenceClassifier {
    /// # Shapes
    /// - `inputs`: three times `[batch, seq]`
    /// - output, `logits`: `[batch, num_labels]`
    pub fn forward(&self, inputs: Inputs) -> Tensor<2> {
        self.head.forward(self.pooled_output(inputs))
    }

    /// What the head reads: the part of the model that a frozen encoder computes once.
    ///
    /// # Shapes
    /// - `inputs`: three times `[batch, seq]`
    /// - output: `[batch, hidden]`
    pub fn pooled_output(&self, inputs: Inputs) -> Tensor<2> {
        pool(&self.bert, inputs, self.pooling)
    }
}
