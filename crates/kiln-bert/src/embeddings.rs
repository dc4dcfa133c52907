use burn::module::{Module, Param};
use burn::nn::{Dropout, Embedding, LayerNorm};
use burn::tensor::{Device, Int, Tensor};
use kiln_kernels::{Embeddings, StoredTable};

use crate::BertConfig;
use crate::attention::probability;

/// Word, position and segment embeddings, summed, normalized, dropped out.
#[derive(Module, Debug)]
pub struct BertEmbeddings {
    /// `[vocab_size, hidden]`
    pub word_embeddings: Embedding,
    /// `[max_position_embeddings, hidden]`
    pub position_embeddings: Embedding,
    /// `[type_vocab_size, hidden]`
    pub token_type_embeddings: Embedding,
    /// Over the hidden axis.
    pub layer_norm: LayerNorm,
    layer_norm_eps: f64,
    dropout: Dropout,
    /// The word embeddings in another form.
    #[module(skip)]
    stored_words: Option<StoredTable>,
}

impl BertEmbeddings {
    pub(crate) fn init(config: &BertConfig, device: &Device) -> Self {
        Self {
            word_embeddings: config.init_embedding(config.vocab_size, device),
            position_embeddings: config.init_embedding(config.max_position_embeddings, device),
            token_type_embeddings: config.init_embedding(config.type_vocab_size, device),
            layer_norm: config.init_layer_norm(device),
            layer_norm_eps: config.layer_norm_eps,
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
    /// When `seq` is above `max_position_embeddings`.
    pub fn forward(&self, input_ids: Tensor<2, Int>, token_type_ids: Tensor<2, Int>) -> Tensor<3> {
        let beta = self.layer_norm.beta.as_ref().expect("BERT's layer normalization shifts");
        let (words, input_ids) = match &self.stored_words {
            Some(stored) => stored.select(input_ids),
            None => (self.word_embeddings.weight.val(), input_ids),
        };
        let embeddings = Embeddings {
            words,
            positions: self.position_embeddings.weight.val(),
            segments: self.token_type_embeddings.weight.val(),
            gamma: self.layer_norm.gamma.val(),
            beta: beta.val(),
            epsilon: self.layer_norm_eps,
            dropout: probability(&self.dropout),
        };
        embeddings.forward(input_ids, token_type_ids)
    }
}
