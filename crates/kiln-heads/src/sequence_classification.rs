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
    /// Width of the input.
    pub hidden_size: usize,
    /// Widths of the fully connected layers before the output layer, each followed by tanh.
    pub hidden_layers: Vec<usize>,
    /// Number of labels: the width of the logits.
    pub num_labels: usize,
    /// Dropout probability before each layer.
    pub dropout: f64,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
}

impl ClassificationHeadConfig {
    /// Checks that the widths are valid and that there is enough memory for fresh weights. `path` is only for the error.
    ///
    /// # Errors
    /// When a hidden layer has width 0, or the layers have too many parameters for the memory of the machine.
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

    /// A head with fresh weights: normal weights, zero biases.
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

/// Fully connected layers on a pooled output: `classifier(… tanh(hidden(x)) …)`, with dropout before each layer.
#[derive(Module, Debug)]
pub struct ClassificationHead {
    dropout: Dropout,
    /// The layers before the output layer, each followed by tanh.
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

/// BERT with a classification head on one pooled vector per row. A row is a text or a pair of texts.
#[derive(Module, Debug)]
pub struct SequenceClassifier {
    /// The encoder.
    pub bert: Bert,
    /// The head.
    pub head: ClassificationHead,
    /// The input of the head.
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

    /// The input of the head. With a frozen encoder, it can be computed once for each row.
    ///
    /// # Shapes
    /// - `inputs`: three times `[batch, seq]`
    /// - output: `[batch, hidden]`
    pub fn pooled_output(&self, inputs: Inputs) -> Tensor<2> {
        pool(&self.bert, inputs, self.pooling)
    }
}
