use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use kiln_bert::BertConfig;
use kiln_heads::{MaskedLm, Network, QuestionAnswerer, TaskModel, Units, load_model};
use kiln_kernels::{PackedWeights, Precision};
use kiln_schema::Task;
use kiln_tokenize::{
    ContextConfig, ContextWindow, ModelLimits, Tokenizer, UnitWindow, by_length, characters, lengths, pad, words,
};

use crate::masks::{TOP, most_probable, places};
use crate::tags::TaggedUnits;
use crate::{
    Error, FilledPrediction, MaskPrediction, PIPELINE_ANSWER_LENGTH, PIPELINE_MAX_LENGTH, Prediction, answer_logits,
    in_batches, inputs, pipeline_answer, tag,
};

/// A model that answers.
#[derive(Debug)]
pub struct Predictor {
    model: TaskModel,
    tokenizer: Tokenizer,
    device: Device,
    /// Tokens told of each mask.
    top: usize,
    batch_size: usize,
}

/// Rows computed at once. More would gain little on a CPU and cost memory.
pub(crate) const BATCH_SIZE: usize = 32;

impl Predictor {
    /// Reads a model folder: weights, head, labels, tokenizer.
    ///
    /// # Errors
    /// When one of them is missing or damaged, or the tokenizer is not the model's.
    pub fn from_folder(folder: &Path, device: &Device) -> Result<Self, Error> {
        let mut model = load_model(folder, device)?;
        model.network.bert_mut().products.packed = Some(PackedWeights::default());
        let tokenizer = tokenizer_of(folder, &model.config)?;
        Ok(Self { model, tokenizer, device: device.clone(), top: TOP, batch_size: BATCH_SIZE })
    }

    /// The same model with the products of its encoder in that precision, where its backend has it.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.model.network.bert_mut().products.precision = precision;
        self
    }

    /// The same model, which computes so many rows at once; 0 counts as 1.
    pub fn with_batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = batch_size.max(1);
        self
    }

    /// What it has learnt.
    pub fn task(&self) -> Task {
        self.model.network.task()
    }

    /// The model.
    pub fn network(&self) -> &Network {
        &self.model.network
    }

    /// Encodes as the model was trained to read.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Answers for texts and pairs, in their order. Of questions the first text is the question and the second the context.
    ///
    /// White space around a text is ignored, as in the rows of a data set; offsets count from the first character that is
    /// left.
    ///
    /// # Errors
    /// When a text cannot be tokenized, or a question has no context.
    pub fn predict(&self, texts: &[(&str, Option<&str>)]) -> Result<Vec<Prediction>, Error> {
        let (pad_token_id, device) = (self.tokenizer.pad_token_id(), &self.device);
        let texts = trimmed(texts);
        let texts = texts.as_slice();
        match &self.model.network {
            Network::SequenceClassification { model, labels, problem_type } => {
                let encodings = self.tokenizer.encode_all(texts.iter().copied())?;
                let logits = in_batches(&lengths(&encodings), self.batch_size, |rows| {
                    model.forward(inputs(&pad(&encodings, rows, pad_token_id), device))
                });
                let rows = texts.iter().zip(logits.chunks(labels.len()));
                Ok(rows.map(|(&texts, logits)| Prediction::of_sequence(texts, logits, labels, *problem_type)).collect())
            }
            Network::TokenClassification { model, labels, units, tag_scheme } => {
                let units: Vec<_> = texts.iter().map(|(text, _)| divide(text, *units)).collect();
                let rows = texts.iter().zip(&units).map(|((text, _), units)| (*text, units.as_slice()));
                let windows: Vec<Vec<UnitWindow>> = self.tokenizer.encode_units_all(rows)?;
                let output = tag(model, &windows, pad_token_id, self.batch_size, device);
                let prediction = |(row, (text, _)): (usize, &(&str, _))| {
                    let (units, tags, scores) = (&units[row], &output.tags[row], &output.scores[row]);
                    TaggedUnits { text, units, tags, scores }.prediction(labels, *tag_scheme)
                };
                Ok(texts.iter().enumerate().map(prediction).collect())
            }
            Network::QuestionAnswering { model } => self.answer(model, texts),
            Network::MaskedLm { model } => self.fill(model, texts),
        }
    }
}

impl Predictor {
    /// The same model, which tells so many tokens of each mask.
    pub fn with_top(mut self, top: usize) -> Self {
        self.top = top;
        self
    }

    /// As transformers' question-answering pipeline does, in windows of its length.
    fn answer(&self, model: &QuestionAnswerer, texts: &[(&str, Option<&str>)]) -> Result<Vec<Prediction>, Error> {
        let pair = |&(question, context): &(&'_ str, Option<&'_ str>)| match context {
            Some(context) => Ok((question.to_owned(), context.to_owned())),
            None => Err(Error::NoContext { question: question.to_owned() }),
        };
        let pairs = texts.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
        let pairs = || pairs.iter().map(|(question, context)| (question.as_str(), context.as_str()));
        let config = ContextConfig { max_length: PIPELINE_MAX_LENGTH, ..ContextConfig::default() };
        let windows: Vec<Vec<ContextWindow>> = self.tokenizer.encode_contexts(pairs(), config)?;
        let all_windows: Vec<&ContextWindow> = windows.iter().flatten().collect();
        let logits = answer_logits(model, &all_windows, self.tokenizer.pad_token_id(), self.batch_size, &self.device);
        let mut remaining = logits.as_slice();
        let mut answers = Vec::with_capacity(texts.len());
        for (pair, windows) in pairs().zip(&windows) {
            let (window_logits, later) = remaining.split_at(windows.len());
            remaining = later;
            answers.push(Prediction::Answer(pipeline_answer(pair, windows, window_logits, PIPELINE_ANSWER_LENGTH)));
        }
        Ok(answers)
    }

    fn fill(&self, model: &MaskedLm, texts: &[(&str, Option<&str>)]) -> Result<Vec<Prediction>, Error> {
        let mask_token_id = self.tokenizer.mask_token_id().ok_or(Error::NoMaskToken)?;
        let mask = self.tokenizer.token(mask_token_id).unwrap_or_default();
        let encodings = self.tokenizer.encode_all(texts.iter().copied())?;
        for ((text, _), encoding) in texts.iter().zip(&encodings) {
            if !encoding.input_ids.contains(&mask_token_id) {
                return Err(Error::NoMask { mask, text: (*text).to_owned() });
            }
        }
        let mut masks: Vec<Vec<MaskPrediction>> = vec![Vec::new(); texts.len()];
        for rows in by_length(&lengths(&encodings), self.batch_size) {
            let batch = pad(&encodings, &rows, self.tokenizer.pad_token_id());
            let places = places(&batch, &encodings, mask_token_id);
            let tokens: Vec<i32> = places.iter().map(|(_, place)| *place).collect();
            let count = tokens.len();
            let tokens = Tensor::from_data(TensorData::new(tokens, [count]), &self.device);
            let logits = model.forward(inputs(&batch, &self.device), tokens).predictions;
            let width = logits.dims()[1];
            let logits = logits.into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32");
            for ((row, _), logits) in places.iter().zip(logits.chunks(width)) {
                let token = |id| self.tokenizer.token(id).unwrap_or_default();
                masks[*row].push(most_probable(logits, self.top, token));
            }
        }
        let filled = |((text, _), masks): (&(&str, Option<&str>), Vec<MaskPrediction>)| {
            let mut filled = (*text).to_owned();
            for found in &masks {
                let best = found.tokens.first().map_or("", |token| token.token.as_str());
                filled = filled.replacen(&mask, best.trim_start_matches("##").trim_start_matches('▁'), 1);
            }
            Prediction::Filled(FilledPrediction { text: (*text).to_owned(), filled, masks })
        };
        Ok(texts.iter().zip(masks).map(filled).collect())
    }
}

/// The tokenizer of a model folder, checked against the model's embeddings and truncating at its positions.
pub(crate) fn tokenizer_of(folder: &Path, config: &BertConfig) -> Result<Tokenizer, Error> {
    let limits = ModelLimits {
        vocab_size: config.vocab_size,
        type_vocab_size: config.type_vocab_size,
        max_position_embeddings: config.max_position_embeddings,
    };
    Ok(Tokenizer::from_folder(folder)?.for_model(limits)?)
}

/// Texts without the white space around them, as a data set's rows are read: `kiln predict` gives the same answer for a
/// text by itself and for one in a file, and a model sees what it was trained on.
pub(crate) fn trimmed<'a>(texts: &[(&'a str, Option<&'a str>)]) -> Vec<(&'a str, Option<&'a str>)> {
    texts.iter().map(|(text, text_pair)| (text.trim(), text_pair.map(str::trim))).collect()
}

fn divide(text: &str, units: Units) -> Vec<std::ops::Range<usize>> {
    match units {
        Units::Characters => characters(text),
        Units::Words => words(text),
    }
}
