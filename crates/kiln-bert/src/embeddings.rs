use burn::module::Module;
use burn::nn::{Dropout, Embedding, LayerNorm};
use burn::tensor::{Device, Int, Tensor};

use crate::BertConfig;

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
    dropout: Dropout,
}

impl BertEmbeddings {
    pub(crate) fn init(config: &BertConfig, device: &Device) -> Self {
        Self {
            word_embeddings: config.init_embedding(config.vocab_size, device),
            position_embeddings: config.init_embedding(config.max_position_embeddings, device),
            token_type_embeddings: config.init_embedding(config.type_vocab_size, device),
            layer_norm: config.init_layer_norm(device),
            dropout: config.init_hidden_dropout(),
        }
    }

    /// # Shapes
    /// - `input_ids`, `token_type_ids`: `[batch, seq]`
    /// - output: `[batch, seq, hidden]`
    ///
    /// # Panics
    /// When `seq` is above `max_position_embeddings`.
    pub fn forward(&self, input_ids: Tensor<2, Int>, token_type_ids: Tensor<2, Int>) -> Tensor<3> {
        let [_, seq] = input_ids.dims();
        let words = self.word_embeddings.forward(input_ids);
        let segments = self.token_type_embeddings.forward(token_type_ids);
        // Positions are 0, 1, 2 …: the first rows of the table, the same for every row of the batch.
        let positions = self.position_embeddings.weight.val().narrow(0, 0, seq).unsqueeze();
        self.dropout.forward(self.layer_norm.forward(words + positions + segments))
    }
}
