use burn::module::Module;
use burn::tensor::{Int, Tensor};
use kiln_bert::{Bert, Inputs};

use crate::{ClassificationHead, Crf};

/// BERT and a classification head on every token's hidden state: transformers' `BertForTokenClassification`, where the head
/// has no hidden layers and there is no CRF.
#[derive(Module, Debug)]
pub struct TokenClassifier {
    /// The encoder; with a pooler where the family's heads on tokens have its layers before their output layer.
    pub bert: Bert,
    /// From a token's hidden state to its logits.
    pub head: ClassificationHead,
    /// The scores of neighbouring tags.
    pub crf: Option<Crf>,
}

impl TokenClassifier {
    /// The logits of some tokens.
    ///
    /// # Shapes
    /// - `inputs`: three times `[batch, seq]`
    /// - `tokens`: `[tokens]`, each `row · seq + position`
    /// - output, `logits`: `[tokens, num_labels]`
    pub fn forward(&self, inputs: Inputs, tokens: Tensor<1, Int>) -> Tensor<2> {
        let hidden_states = self.bert.forward(inputs);
        let [batch, seq, hidden] = hidden_states.dims();
        let tokens = hidden_states.reshape([batch * seq, hidden]).select(0, tokens);
        self.head.forward(match &self.bert.pooler {
            Some(transform) => transform.transform(tokens),
            None => tokens,
        })
    }
}
