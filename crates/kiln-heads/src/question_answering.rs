use burn::module::Module;
use burn::tensor::{Bool, Device, Int, Tensor};
use kiln_bert::{Bert, BertConfig, Inputs, Linear};

use crate::cross_entropy_sum;

/// BERT with a linear layer on every token's hidden state, for the logits of an answer's start and end: transformers'
/// `BertForQuestionAnswering`.
#[derive(Module, Debug)]
pub struct QuestionAnswerer {
    /// The encoder. Its pooler holds the layers that token-level heads of some families have before their output layer.
    pub bert: Bert,
    /// `[hidden, 2]`: start and end.
    pub qa_outputs: Linear,
}

impl QuestionAnswerer {
    /// Puts a fresh output layer on an encoder: normal weights, zero bias.
    pub fn new(bert: Bert, config: &BertConfig, device: &Device) -> Self {
        Self { bert, qa_outputs: config.init_linear(config.hidden_size, 2, device) }
    }

    /// The logits of an answer's first and last token.
    ///
    /// # Shapes
    /// - `inputs`: three times `[batch, seq]`
    /// - output: start and end, `[batch, seq]` each
    pub fn forward(&self, inputs: Inputs) -> [Tensor<2>; 2] {
        let hidden_states = self.bert.forward(inputs);
        let [batch, seq, hidden] = hidden_states.dims();
        let hidden_states = match &self.bert.pooler {
            Some(transform) => {
                transform.transform(hidden_states.reshape([batch * seq, hidden])).reshape([batch, seq, hidden])
            }
            None => hidden_states,
        };
        // logits = [batch, seq, 2]
        let logits = self.qa_outputs.forward(hidden_states);
        [0, 1].map(|part| logits.clone().slice([0..batch, 0..seq, part..part + 1]).squeeze_dim(2))
    }
}

/// Masks the logits of padding, so that padding is excluded from the softmax. In transformers it is included.
///
/// # Shapes
/// - `logits`, output: start and end, `[batch, seq]` each
/// - `padding`: `[batch, seq]`, true where a position is padding
pub fn without_padding(logits: [Tensor<2>; 2], padding: Tensor<2, Bool>) -> [Tensor<2>; 2] {
    /// A finite substitute for −∞.
    const NEVER: f64 = -1e4;
    logits.map(|logits| logits.mask_fill(padding.clone(), NEVER))
}

/// The mean of the cross-entropies of an answer's start and end, summed over the batch.
///
/// # Shapes
/// - `logits`: start and end, `[batch, seq]` each
/// - `targets`: first and last token, `[batch]` each; both 0 if the row has no answer
/// - output: `[1]`, in nats
pub fn answer_loss_sum(logits: [Tensor<2>; 2], targets: [Tensor<1, Int>; 2]) -> Tensor<1> {
    let [start, end] = logits;
    let [first, last] = targets;
    (cross_entropy_sum(start, first) + cross_entropy_sum(end, last)) / 2.0
}
