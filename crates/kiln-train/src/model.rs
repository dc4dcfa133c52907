use burn::module::Module;
use burn::tensor::Tensor;
use kiln_bert::Bert;
use kiln_heads::{ClassificationHead, MaskedLm, QuestionAnswerer, SequenceClassifier, TokenClassifier};

use crate::gradients::{Take, each_gradient};

/// A model that [`Fit`](crate::Fit) can train. Every [`EncoderModel`] is also a `Model`.
pub trait Model: Module {
    /// Passes the gradient of a loss, `[1]`, with respect to each parameter to `take`. A parameter may be passed several
    /// times; its gradient is then the sum.
    fn gradients(&self, loss: Tensor<1>, take: Take<'_>) {
        each_gradient(self, loss.backward(), take);
    }
}

/// A model with an encoder.
pub trait EncoderModel: Module {
    /// The encoder.
    fn bert(&self) -> &Bert;
}

impl<M: EncoderModel> Model for M {
    /// With gradient checkpointing, the encoder computes its own part of the backward pass.
    fn gradients(&self, loss: Tensor<1>, take: Take<'_>) {
        let of_loss = loss.backward();
        self.bert().backward(&of_loss, |of_layer| each_gradient(self, of_layer, take));
        each_gradient(self, of_loss, take);
    }
}

/// A head without its encoder, trained on features that the encoder computed before.
impl Model for ClassificationHead {}

impl EncoderModel for SequenceClassifier {
    fn bert(&self) -> &Bert {
        &self.bert
    }
}

impl EncoderModel for TokenClassifier {
    fn bert(&self) -> &Bert {
        &self.bert
    }
}

impl EncoderModel for QuestionAnswerer {
    fn bert(&self) -> &Bert {
        &self.bert
    }
}

impl EncoderModel for MaskedLm {
    fn bert(&self) -> &Bert {
        &self.bert
    }
}
