use burn::module::{Initializer, Module, Param};
use burn::nn::{LayerNorm, LinearConfig};
use burn::tensor::{Device, Int, Tensor};
use kiln_bert::{Bert, BertConfig, BertEmbeddings, HiddenAct, Inputs, Linear, NamedParameter, Weights, load_as};
use kiln_kernels::{Products, StoredTable, table_scores};
use serde_json::Value;

use crate::Error;

/// BERT under the heads of its pre-training: transformers' `BertForPreTraining`, or, without the second, `BertForMaskedLM`.
#[derive(Module, Debug)]
pub struct MaskedLm {
    /// The encoder; with a pooler where there is a head for the next sentence.
    pub bert: Bert,
    /// The heads.
    pub cls: PreTrainingHeads,
}

/// The heads, by the names that checkpoints have for them.
#[derive(Module, Debug)]
pub struct PreTrainingHeads {
    /// For masked tokens.
    pub predictions: MaskedLmHead,
    /// Whether the second segment follows the first (0) or not (1), read from the pooler's output.
    pub seq_relationship: Option<Linear>,
}

/// `decoder(norm(act(dense(x))))`, in f32, whatever the encoder's precision.
#[derive(Module, Debug)]
pub struct MaskedLmHead {
    /// Before the decoder.
    pub transform: MaskedLmTransform,
    /// Of the decoder, `[vocab_size]`; none where the config says so.
    pub bias: Option<Param<Tensor<1>>>,
    /// The decoder's weight in another form.
    #[module(skip)]
    stored_decoder: Option<StoredTable>,
    /// The decoder's weight, without a bias, `[embedding, vocab_size]`; without it the decoder's weight is the word embeddings.
    pub decoder: Option<burn::nn::Linear>,
}

/// `norm(act(dense(x)))`
#[derive(Module, Debug)]
pub struct MaskedLmTransform {
    /// `[hidden, embedding]`: from the width of the hidden states to that of the embeddings, mostly the same.
    pub dense: Linear,
    /// Over the embeddings' axis.
    pub layer_norm: LayerNorm,
    #[module(skip)]
    hidden_act: HiddenAct,
}

/// The logits of the heads of pre-training.
#[derive(Clone, Debug)]
pub struct MaskedLmOutput {
    /// Of each requested token, `[tokens, vocab_size]`.
    pub predictions: Tensor<2>,
    /// Of each row, `[batch, 2]`, where there is such a head.
    pub seq_relationship: Option<Tensor<2>>,
}

/// The names of the decoder's parameters in a checkpoint.
pub(crate) const DECODER_WEIGHT: &str = "cls.predictions.decoder.weight";
pub(crate) const DECODER_BIAS: &str = "cls.predictions.decoder.bias";
pub(crate) const PREDICTIONS_PREFIX: &str = "cls.predictions.";

impl PreTrainingHeads {
    /// Fresh heads: normal weights, biases zero. Where the config says `tie_word_embeddings = false`, the decoder has a weight
    /// of its own.
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

    /// The head with a checkpoint's weights, decided as transformers does: a decoder in the checkpoint that differs from
    /// the word embeddings is its own, whatever the config says; and so is a bias of the decoder.
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

    /// [`MaskedLmHead::load`] for an encoder whose word embeddings are read where their file has them: so is a decoder of
    /// its own.
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

    /// The parameters of both heads, to be saved: a decoder of its own reads its bias by another name in transformers.
    pub(crate) fn with_decoder_bias(&self, mut parameters: Vec<NamedParameter>) -> Vec<NamedParameter> {
        if self.decoder.is_some() {
            let bias = parameters.iter().find(|parameter| parameter.name == "cls.predictions.bias").cloned();
            parameters.extend(bias.map(|bias| NamedParameter { name: DECODER_BIAS.to_owned(), ..bias }));
        }
        parameters
    }
}

/// The decoder's bias alone, to be loaded by its own name.
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
    /// The logits of some tokens, those that are masked, and of the rows.
    ///
    /// # Shapes
    /// - `inputs`: three times `[batch, seq]`
    /// - `tokens`: `[tokens]`, each `row · seq + position`
    ///
    /// # Panics
    /// When there is a head for the next sentence and no pooler.
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
