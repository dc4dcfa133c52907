use burn::module::Module;
use burn::tensor::{Int, Tensor};
use kiln_bert::{Bert, Inputs};

use crate::{ClassificationHead, Crf};

/// BERT with a classification head on every token's hidden state. Without hidden layers and a CRF, it is transformers'
/// `BertForTokenClassification`.
#[derive(Module, Debug)]
pub struct TokenClassifier {
    /// The encoder. Its pooler holds the layers that token-level heads of some families have before their output layer.
    pub bert: Bert,
    /// The head, which maps a token's hidden state to its logits.
    pub head: ClassificationHead,
    /// The CRF on the logits, if there is one.
    pub crf: Option<Crf>,
}

impl TokenClassifier {
    /// The logits of the given tokens.
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
