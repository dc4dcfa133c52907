use burn::module::{Initializer, Module, Param};
use burn::nn::{LayerNorm, LinearConfig};
use burn::tensor::{Device, Int, Tensor};
use kiln_bert::{Bert, BertConfig, BertEmbeddings, HiddenAct, Inputs, Linear, NamedParameter, Weights, load_as};
use kiln_kernels::{Products, StoredTable, table_scores};
use serde_json::Value;

use crate::Error;

/// BERT with the heads of its pre-training: transformers' `BertForPreTraining`, or `BertForMaskedLM` without the head for
/// the next sentence.
#[derive(Module, Debug)]
pub struct MaskedLm {
    /// The encoder, with a pooler if there is a head for the next sentence.
    pub bert: Bert,
    /// The heads.
    pub cls: PreTrainingHeads,
}

/// The heads of pre-training. The fields have the names of the tensors in checkpoints.
#[derive(Module, Debug)]
pub struct PreTrainingHeads {
    /// The head for masked tokens.
    pub predictions: MaskedLmHead,
    /// The head for the next sentence. It reads the pooler's output, and predicts whether the second segment follows the
    /// first (0) or not (1).
    pub seq_relationship: Option<Linear>,
}

/// `decoder(norm(act(dense(x))))`, always in f32.
#[derive(Module, Debug)]
pub struct MaskedLmHead {
    /// The layers before the decoder.
    pub transform: MaskedLmTransform,
    /// The decoder's bias, `[vocab_size]`; `None` if the config has `decoder_bias = false`.
    pub bias: Option<Param<Tensor<1>>>,
    /// The decoder's weight, if it is read from its file in place.
    #[module(skip)]
    stored_decoder: Option<StoredTable>,
    /// The decoder's weight without a bias, `[embedding, vocab_size]`. `None` if the word embeddings are the decoder's
    /// weight.
    pub decoder: Option<burn::nn::Linear>,
}

/// `norm(act(dense(x)))`
#[derive(Module, Debug)]
pub struct MaskedLmTransform {
    /// `[hidden, embedding]`: from the width of the hidden states to that of the embeddings, which is usually the same.
    pub dense: Linear,
    /// Normalization over the last axis.
    pub layer_norm: LayerNorm,
    #[module(skip)]
    hidden_act: HiddenAct,
}

/// The logits of the heads of pre-training.
#[derive(Clone, Debug)]
pub struct MaskedLmOutput {
    /// The logits of each requested token, `[tokens, vocab_size]`.
    pub predictions: Tensor<2>,
    /// The logits of each row, `[batch, 2]`, if there is a head for the next sentence.
    pub seq_relationship: Option<Tensor<2>>,
}

/// The names of the decoder's parameters in a checkpoint.
pub(crate) const DECODER_WEIGHT: &str = "cls.predictions.decoder.weight";
pub(crate) const DECODER_BIAS: &str = "cls.predictions.decoder.bias";
pub(crate) const PREDICTIONS_PREFIX: &str = "cls.predictions.";

impl PreTrainingHeads {
    /// Fresh heads: normal weights, zero biases. The decoder has its own weight if the config has
    /// `tie_word_embeddings = false`, and otherwise uses the word embeddings.
    pub fn new(config: &BertConfig, next_sentence: bool, device: &Device) -> Self {
        let has_bias = config.extra.get("decoder_bias") != Some(&Value::Bool(false));
        let is_tied = config.extra.get("tie_word_embeddings") != Some(&Value::Bool(false));
        Self {
            predictions: MaskedLmHead {
                transform: MaskedLmTransform {
                    dense: config.init_head_linear(config.hidden_size, config.embedding_size(), device),
                    layer_norm: config.init_layer_norm(config.embedding_size(), device),
                    hidden_act: config.head_act(),
                },
                bias: has_bias.then(|| Initializer::Zeros.init([config.vocab_size], device)),
                stored_decoder: None,
                decoder: (!is_tied).then(|| fresh_decoder(config, device)),
            },
            seq_relationship: next_sentence.then(|| config.init_linear(config.hidden_size, 2, device)),
        }
    }
}

impl MaskedLmHead {
    /// # Shapes
    /// - `hidden_states`: `[tokens, hidden]`
    /// - output, `logits`: `[tokens, vocab_size]`
    pub fn forward(&self, hidden_states: Tensor<2>, embeddings: &BertEmbeddings) -> Tensor<2> {
        let MaskedLmTransform { dense, layer_norm, hidden_act } = &self.transform;
        let dense = dense.activated(hidden_states, (*hidden_act).into(), &Products::default());
        let transformed = layer_norm.forward(dense);
        let stored = match &self.decoder {
            Some(_) => None,
            None => self.stored_decoder.as_ref().or(embeddings.stored_words()),
        };
        let scores = match (stored, &self.decoder) {
            (Some(table), _) => table.scores(transformed),
            (None, Some(decoder)) => table_scores(transformed, decoder.weight.val().transpose()),
            (None, None) => table_scores(transformed, embeddings.word_embeddings.weight.val()),
        };
        match &self.bias {
            Some(bias) => scores + bias.val().unsqueeze(),
            None => scores,
        }
    }

    /// Loads the head from a checkpoint, as transformers does. A decoder weight that differs from the word embeddings
    /// becomes the head's own, even if the config ties them. A decoder bias has precedence over the head's bias.
    pub(crate) fn load(self, config: &BertConfig, weights: &Weights, device: &Device) -> Result<Self, Error> {
        let mut head = self;
        let decoder_weight = config.tensor_name(DECODER_WEIGHT);
        if head.decoder.is_none() && weights.shape(&decoder_weight).is_some() {
            let words = config.tensor_name("embeddings.word_embeddings.weight");
            let words = [config.family().prefix, ""].map(|prefix| format!("{prefix}{words}"));
            let words = words.iter().find(|name| weights.shape(name).is_some());
            let words = words.map(|name| weights.read(name)).transpose()?.flatten();
            if weights.read(&decoder_weight)? != words {
                head.decoder = Some(fresh_decoder(config, device));
            }
        }
        head.load_parameters(config, weights)
    }

    /// [`MaskedLmHead::load`] for an encoder whose word embeddings are read from their file in place. A separate decoder
    /// weight is read in the same way.
    pub(crate) fn load_stored(self, config: &BertConfig, weights: &Weights, device: &Device) -> Result<Self, Error> {
        let decoder_weight = config.tensor_name(DECODER_WEIGHT);
        let Some(values) = weights.stored(&decoder_weight)? else { return self.load(config, weights, device) };
        let shape = [config.vocab_size, config.embedding_size()];
        weights.check_shape(&decoder_weight, &shape)?;
        let stored_decoder = Some(StoredTable::new(values, shape));
        Self { stored_decoder, decoder: None, ..self }.load_parameters(config, weights)
    }

    fn load_parameters(self, config: &BertConfig, weights: &Weights) -> Result<Self, Error> {
        let name = |name: &str| Some(config.tensor_name(&format!("{PREDICTIONS_PREFIX}{name}")));
        let mut head = load_as(self, weights, &name)?.module;
        let decoder_bias = config.tensor_name(DECODER_BIAS);
        if weights.shape(&decoder_bias).is_some() {
            head.bias = load_as(DecoderBias { bias: head.bias }, weights, &|_| Some(decoder_bias.clone()))?.module.bias;
        }
        Ok(head)
    }

    /// Adds the decoder's bias to the parameters to save, if the decoder has its own weight: transformers reads the bias
    /// under another name then.
    pub(crate) fn with_decoder_bias(&self, mut parameters: Vec<NamedParameter>) -> Vec<NamedParameter> {
        if self.decoder.is_some() {
            let bias = parameters.iter().find(|parameter| parameter.name == "cls.predictions.bias").cloned();
            parameters.extend(bias.map(|bias| NamedParameter { name: DECODER_BIAS.to_owned(), ..bias }));
        }
        parameters
    }
}

/// The decoder's bias as a module, to load it by its own name.
#[derive(Module, Debug)]
struct DecoderBias {
    bias: Option<Param<Tensor<1>>>,
}

fn fresh_decoder(config: &BertConfig, device: &Device) -> burn::nn::Linear {
    let normal = Initializer::Normal { mean: 0.0, std: config.initializer_range };
    let linear = LinearConfig::new(config.embedding_size(), config.vocab_size).with_bias(false);
    linear.with_initializer(normal).init(device)
}

impl MaskedLm {
    /// The logits of the given tokens, usually the masked ones, and of the rows.
    ///
    /// # Shapes
    /// - `inputs`: three times `[batch, seq]`
    /// - `tokens`: `[tokens]`, each `row · seq + position`
    ///
    /// # Panics
    /// When there is a head for the next sentence but no pooler.
    pub fn forward(&self, inputs: Inputs, tokens: Tensor<1, Int>) -> MaskedLmOutput {
        let hidden_states = self.bert.forward(inputs);
        let [batch, seq, hidden] = hidden_states.dims();
        let seq_relationship = self.cls.seq_relationship.as_ref().map(|linear| {
            let pooler = self.bert.pooler.as_ref().expect("the head for the next sentence reads the pooler");
            linear.forward(pooler.forward(hidden_states.clone()))
        });
        let masked = hidden_states.reshape([batch * seq, hidden]).select(0, tokens);
        let predictions = self.cls.predictions.forward(masked, &self.bert.embeddings);
        MaskedLmOutput { predictions, seq_relationship }
    }
}
