use burn::module::{Initializer, Module, Param};
use burn::nn::{LayerNorm, Linear};
use burn::tensor::{Device, Int, Tensor};
use kiln_bert::{Bert, BertConfig, Inputs};
use kiln_kernels::{Products, linear_gelu};

/// BERT under the heads of its pre-training: transformers' `BertForPreTraining`, or, without the second, `BertForMaskedLM`.
#[derive(Module, Debug)]
pub struct MaskedLm {
    /// The encoder; with a pooler where the next sentence is told.
    pub bert: Bert,
    /// What is added to it.
    pub cls: PreTrainingHeads,
}

/// The heads, by the names that checkpoints have for them.
#[derive(Module, Debug)]
pub struct PreTrainingHeads {
    /// Which token was masked.
    pub predictions: MaskedLmHead,
    /// Whether the second segment follows the first (0) or not (1), read from the pooler's output.
    pub seq_relationship: Option<Linear>,
}

/// `decoder(norm(gelu(dense(x))))`, where the decoder's weights are the word embeddings; in f32, whatever the encoder's precision.
#[derive(Module, Debug)]
pub struct MaskedLmHead {
    /// Before the decoder.
    pub transform: MaskedLmTransform,
    /// The decoder's, `[vocab_size]`.
    pub bias: Param<Tensor<1>>,
}

/// `norm(gelu(dense(x)))`
#[derive(Module, Debug)]
pub struct MaskedLmTransform {
    /// `[hidden, hidden]`
    pub dense: Linear,
    /// Over the hidden axis.
    pub layer_norm: LayerNorm,
}

/// What the heads of pre-training say of a batch.
#[derive(Clone, Debug)]
pub struct MaskedLmOutput {
    /// Of each token that was asked for, `[tokens, vocab_size]`.
    pub predictions: Tensor<2>,
    /// Of each row, `[batch, 2]`, where there is such a head.
    pub seq_relationship: Option<Tensor<2>>,
}

impl PreTrainingHeads {
    /// Fresh heads: normal weights, biases zero.
    pub fn new(config: &BertConfig, next_sentence: bool, device: &Device) -> Self {
        Self {
            predictions: MaskedLmHead {
                transform: MaskedLmTransform {
                    dense: config.init_linear(config.hidden_size, config.hidden_size, device),
                    layer_norm: config.init_layer_norm(device),
                },
                bias: Initializer::Zeros.init([config.vocab_size], device),
            },
            seq_relationship: next_sentence.then(|| config.init_linear(config.hidden_size, 2, device)),
        }
    }
}

impl MaskedLmHead {
    /// # Shapes
    /// - `hidden_states`: `[tokens, hidden]`
    /// - `words`: the word embeddings, `[vocab_size, hidden]`
    /// - output, `logits`: `[tokens, vocab_size]`
    pub fn forward(&self, hidden_states: Tensor<2>, words: Tensor<2>) -> Tensor<2> {
        let MaskedLmTransform { dense, layer_norm } = &self.transform;
        let bias = dense.bias.as_ref().expect("every linear layer of BERT has a bias").val();
        let transformed =
            layer_norm.forward(linear_gelu(hidden_states, dense.weight.val(), bias, &Products::default()));
        transformed.matmul(words.transpose()) + self.bias.val().unsqueeze()
    }
}

impl MaskedLm {
    /// The logits of some tokens, those that are masked, and of the rows.
    ///
    /// # Shapes
    /// - `inputs`: three times `[batch, seq]`
    /// - `tokens`: `[tokens]`, each `row · seq + position`
    ///
    /// # Panics
    /// When the next sentence is to be told and there is no pooler.
    pub fn forward(&self, inputs: Inputs, tokens: Tensor<1, Int>) -> MaskedLmOutput {
        let hidden_states = self.bert.forward(inputs);
        let [batch, seq, hidden] = hidden_states.dims();
        let seq_relationship = self.cls.seq_relationship.as_ref().map(|linear| {
            let pooler = self.bert.pooler.as_ref().expect("the next sentence is told from the pooler");
            linear.forward(pooler.forward(hidden_states.clone()))
        });
        let masked = hidden_states.reshape([batch * seq, hidden]).select(0, tokens);
        let words = self.bert.embeddings.word_embeddings.weight.val();
        MaskedLmOutput { predictions: self.cls.predictions.forward(masked, words), seq_relationship }
    }
}
