use burn::module::Module;
use burn::tensor::{Bool, Device, Int, Tensor};
use kiln_bert::{Bert, BertConfig, Inputs, Linear};

use crate::cross_entropy_sum;

/// BERT and one linear layer on every token's hidden state, whose logits are those of an answer's start and end:
/// transformers' `BertForQuestionAnswering`.
#[derive(Module, Debug)]
pub struct QuestionAnswerer {
    /// The encoder; with a pooler where the family's heads on tokens have its layers before their output layer.
    pub bert: Bert,
    /// `[hidden, 2]`: start and end.
    pub qa_outputs: Linear,
}

impl QuestionAnswerer {
    /// An encoder under a fresh output layer: normal, bias zero.
    pub fn new(bert: Bert, config: &BertConfig, device: &Device) -> Self {
        Self { bert, qa_outputs: config.init_linear(config.hidden_size, 2, device) }
    }

    /// The logits of an answer's first and last token.
    ///
    /// # Shapes
    /// - `inputs`: three times `[batch, seq]`
    /// - output, each: `[batch, seq]`
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

/// The logits of an answer's first and last token without those of padding, which take no part in the softmax then; in
/// transformers they do.
///
/// # Shapes
/// - `logits`, output: start and end, `[batch, seq]` each
/// - `padding`: `[batch, seq]`, true where a position is padding
pub fn without_padding(logits: [Tensor<2>; 2], padding: Tensor<2, Bool>) -> [Tensor<2>; 2] {
    /// As good as −∞, and finite.
    const NEVER: f64 = -1e4;
    logits.map(|logits| logits.mask_fill(padding.clone(), NEVER))
}

/// The mean of both cross-entropies of a row, summed over the batch.
///
/// # Shapes
/// - `logits`: start and end, `[batch, seq]` each
/// - `targets`: first and last token, `[batch]` each; both 0 where the row has no answer
/// - output: `[1]`, in nats
pub fn answer_loss_sum(logits: [Tensor<2>; 2], targets: [Tensor<1, Int>; 2]) -> Tensor<1> {
    let [start, end] = logits;
    let [first, last] = targets;
    (cross_entropy_sum(start, first) + cross_entropy_sum(end, last)) / 2.0
}
