use burn::module::{Module, Param};
use burn::nn::{Dropout, Embedding, LayerNorm};
use burn::tensor::{Device, Int, Tensor};
use kiln_kernels::{Embeddings, StoredTable};

use crate::BertConfig;
use crate::attention::probability;
use crate::family::Positions;
use crate::linear::normalization;

/// Word, position and segment embeddings, summed, normalized, dropped out; by the rules of the config's family.
#[derive(Module, Debug)]
pub struct BertEmbeddings {
    /// `[vocab_size, hidden]`
    pub word_embeddings: Embedding,
    /// `[max_position_embeddings, hidden]`; none in families that do not embed positions.
    pub position_embeddings: Option<Embedding>,
    /// `[type_vocab_size, hidden]`; none in families that do not tell segments apart.
    pub token_type_embeddings: Option<Embedding>,
    /// `[task_type_vocab_size, hidden]`, in ERNIE: the first row is added to every token.
    pub task_type_embeddings: Option<Embedding>,
    /// Over the hidden axis.
    pub layer_norm: LayerNorm,
    layer_norm_eps: f64,
    /// The row of the first token's position.
    first_position: usize,
    dropout: Dropout,
    /// The word embeddings in another form.
    #[module(skip)]
    stored_words: Option<StoredTable>,
}

impl BertEmbeddings {
    pub(crate) fn init(config: &BertConfig, device: &Device) -> Self {
        let has_segments = config.family().has_segments;
        Self {
            word_embeddings: config.init_embedding(config.vocab_size, device),
            position_embeddings: (config.family().positions != Positions::Rotary)
                .then(|| config.init_embedding(config.max_position_embeddings, device)),
            token_type_embeddings: has_segments.then(|| config.init_embedding(config.type_vocab_size, device)),
            task_type_embeddings: config.task_types().map(|entries| config.init_embedding(entries, device)),
            layer_norm: config.init_layer_norm(config.embedding_size(), device),
            layer_norm_eps: config.layer_norm_eps,
            first_position: config.first_position(),
            dropout: config.init_hidden_dropout(),
            stored_words: None,
        }
    }

    /// The same embeddings with those of words in another form, which is not trained. The tensor in their place has their
    /// shape, takes no memory, and holds no number.
    pub(crate) fn with_stored_words(self, words: StoredTable) -> Self {
        let (device, shape) = (self.word_embeddings.weight.lazy_device(), self.word_embeddings.weight.lazy_shape());
        let placeholder = Tensor::<2>::full([1, 1], f32::NAN, &device).expand(shape.dims::<2>());
        let word_embeddings = Embedding { weight: Param::from_tensor(placeholder) };
        Self { word_embeddings, stored_words: Some(words), ..self }
    }

    /// The word embeddings in another form than as a tensor, if they are so.
    pub fn stored_words(&self) -> Option<&StoredTable> {
        self.stored_words.as_ref()
    }

    /// # Shapes
    /// - `input_ids`, `token_type_ids`: `[batch, seq]`
    /// - output: `[batch, seq, hidden]`
    ///
    /// # Panics
    /// When `seq` is above the config's [`max_sequence_length`](BertConfig::max_sequence_length).
    pub fn forward(&self, input_ids: Tensor<2, Int>, token_type_ids: Tensor<2, Int>) -> Tensor<3> {
        let kiln_kernels::LayerNorm { gamma, beta, epsilon } = normalization(&self.layer_norm, self.layer_norm_eps);
        let [_, seq] = input_ids.dims();
        let (words, input_ids) = match &self.stored_words {
            Some(stored) => stored.select(input_ids),
            None => (self.word_embeddings.weight.val(), input_ids),
        };
        let embeddings = Embeddings {
            segments: self.segments(&words),
            positions: self.positions(seq, &words),
            words,
            gamma,
            beta,
            epsilon,
            dropout: probability(&self.dropout),
        };
        let token_type_ids = match &self.token_type_embeddings {
            Some(_) => token_type_ids,
            None => token_type_ids.zeros_like(),
        };
        embeddings.forward(input_ids, token_type_ids)
    }

    /// The rows of the position embeddings that tokens read, `[positions, hidden]`: `seq` at least.
    fn positions(&self, seq: usize, words: &Tensor<2>) -> Tensor<2> {
        let Some(positions) = &self.position_embeddings else {
            let [_, hidden] = words.dims();
            return Tensor::zeros([seq, hidden], &words.device());
        };
        let positions = positions.weight.val();
        match self.first_position {
            0 => positions,
            first => {
                let [rows, _] = positions.dims();
                positions.narrow(0, first, rows - first)
            }
        }
    }

    /// What is added by segment, `[segments, hidden]`.
    fn segments(&self, words: &Tensor<2>) -> Tensor<2> {
        let Some(segments) = &self.token_type_embeddings else {
            let [_, hidden] = words.dims();
            return Tensor::zeros([1, hidden], &words.device());
        };
        match &self.task_type_embeddings {
            Some(tasks) => segments.weight.val() + tasks.weight.val().narrow(0, 0, 1),
            None => segments.weight.val(),
        }
    }
}
