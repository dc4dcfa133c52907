use burn::module::{Module, Param};
use burn::nn::{Dropout, Embedding, LayerNorm};
use burn::tensor::{Device, Int, Tensor};
use kiln_kernels::{Embeddings, StoredTable};

use crate::BertConfig;
use crate::attention::probability;
use crate::family::Positions;
use crate::linear::normalization;

/// The sum of word, position and segment embeddings, normalized and with dropout, by the rules of the config's family.
#[derive(Module, Debug)]
pub struct BertEmbeddings {
    /// `[vocab_size, hidden]`
    pub word_embeddings: Embedding,
    /// `[max_position_embeddings, hidden]`; none in families without position embeddings.
    pub position_embeddings: Option<Embedding>,
    /// `[type_vocab_size, hidden]`; none in families without segments.
    pub token_type_embeddings: Option<Embedding>,
    /// `[task_type_vocab_size, hidden]`, in ERNIE: the first row is added to every token.
    pub task_type_embeddings: Option<Embedding>,
    /// Normalization over the hidden axis.
    pub layer_norm: LayerNorm,
    layer_norm_eps: f64,
    /// The row of the position embeddings for the first token.
    first_position: usize,
    dropout: Dropout,
    /// The word embeddings, if they are stored in a form other than a tensor.
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

    /// The same embeddings with the word embeddings in another form, which is not trained. A placeholder tensor replaces
    /// them: it has their shape, uses no memory, and contains only NaN.
    pub(crate) fn with_stored_words(self, words: StoredTable) -> Self {
        let (device, shape) = (self.word_embeddings.weight.lazy_device(), self.word_embeddings.weight.lazy_shape());
        let placeholder = Tensor::<2>::full([1, 1], f32::NAN, &device).expand(shape.dims::<2>());
        let word_embeddings = Embedding { weight: Param::from_tensor(placeholder) };
        Self { word_embeddings, stored_words: Some(words), ..self }
    }

    /// Converts stored word embeddings to a tensor, which is needed to save or explain a model.
    pub fn read_words(&mut self) {
        if let Some(stored) = self.stored_words.take() {
            let device = self.word_embeddings.weight.val().device();
            self.word_embeddings.weight = Param::from_tensor(stored.tensor(&device)).set_require_grad(false);
        }
    }

    /// The word embeddings, if they are stored in a form other than a tensor.
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
        let around_padding = self.rows_around_padding(&input_ids);
        let (words, input_ids) = match &self.stored_words {
            Some(stored) => stored.select(input_ids),
            None => (self.word_embeddings.weight.val(), input_ids),
        };
        let segments = self.segments(&words);
        let (words, positions, input_ids) = match around_padding {
            Some(rows) => self.positioned(&words, input_ids, rows),
            None => {
                let positions = self.positions(seq, &words);
                (words, positions, input_ids)
            }
        };
        let embeddings =
            Embeddings { segments, positions, words, gamma, beta, epsilon, dropout: probability(&self.dropout) };
        let token_type_ids = match &self.token_type_embeddings {
            Some(_) => token_type_ids,
            None => token_type_ids.zeros_like(),
        };
        embeddings.forward(input_ids, token_type_ids)
    }

    /// The row of the position embeddings that each token reads, `[batch · seq]`, if a text contains the padding token
    /// before its end. That token reads the padding row, and later tokens do not count it, as in transformers'
    /// `create_position_ids_from_input_ids`. None if no text contains it, or if positions start at 0.
    fn rows_around_padding(&self, input_ids: &Tensor<2, Int>) -> Option<Tensor<1, Int>> {
        let padding = self.first_position.checked_sub(1)? as i64;
        let [_, seq] = input_ids.dims();
        let ids: Vec<i64> = input_ids.to_data().iter::<i64>().collect();
        let spells_it = |text: &[i64]| {
            let end = text.iter().rposition(|&id| id != padding).map_or(0, |last| last + 1);
            text[..end].contains(&padding)
        };
        if !ids.chunks(seq.max(1)).any(spells_it) {
            return None;
        }
        let rows = ids.chunks(seq).flat_map(|text| {
            let mut last = padding;
            text.iter().map(move |&id| {
                last += i64::from(id != padding);
                if id == padding { padding } else { last }
            })
        });
        let rows: Vec<i64> = rows.collect();
        Some(Tensor::from_ints(rows.as_slice(), &input_ids.device()))
    }

    /// A table with the sum of the word and position embeddings of each token; position embeddings of zero; and the
    /// table's row for each token.
    fn positioned(
        &self,
        words: &Tensor<2>,
        input_ids: Tensor<2, Int>,
        rows: Tensor<1, Int>,
    ) -> (Tensor<2>, Tensor<2>, Tensor<2, Int>) {
        let [batch, seq] = input_ids.dims();
        let [_, hidden] = words.dims();
        let device = words.device();
        let mut words = words.clone().select(0, input_ids.reshape([batch * seq]));
        if let Some(positions) = &self.position_embeddings {
            words = words + positions.weight.val().select(0, rows);
        }
        let input_ids = Tensor::arange(0..(batch * seq) as i64, &device).reshape([batch, seq]);
        (words, Tensor::zeros([seq, hidden], &device), input_ids)
    }

    /// The rows of the position embeddings that tokens read, `[positions, hidden]`; at least `seq` rows.
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

    /// The embeddings that are added by segment, `[segments, hidden]`.
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
