use std::path::Path;

use burn::tensor::Device;
use kiln_heads::{Classifier, load_classifier};
use kiln_kernels::{PackedWeights, Precision};
use kiln_schema::LabelSet;
use kiln_tokenize::{Encoding, Tokenizer, lengths, pad};

use crate::{Error, Prediction, in_batches, inputs};

/// A model that answers.
#[derive(Debug)]
pub struct Predictor {
    classifier: Classifier,
    tokenizer: Tokenizer,
    device: Device,
}

/// Rows computed at once. More would gain little on a CPU and cost memory.
const BATCH_SIZE: usize = 32;

impl Predictor {
    /// Reads a model folder: weights, head, labels, tokenizer.
    ///
    /// # Errors
    /// When one of them is missing or damaged, or the tokenizer is not the model's.
    pub fn from_folder(folder: &Path, device: &Device) -> Result<Self, Error> {
        let mut classifier = load_classifier(folder, device)?;
        classifier.model.bert.products.packed = Some(PackedWeights::default());
        let tokenizer = Tokenizer::from_folder(folder)?;
        let config = &classifier.config;
        if tokenizer.vocab_size() > config.vocab_size {
            return Err(Error::Vocabulary {
                folder: folder.to_owned(),
                tokenizer: tokenizer.vocab_size(),
                model: config.vocab_size,
            });
        }
        if tokenizer.max_length() > config.max_position_embeddings {
            return Err(Error::MaxLength {
                folder: folder.to_owned(),
                tokenizer: tokenizer.max_length(),
                model: config.max_position_embeddings,
            });
        }
        Ok(Self { classifier, tokenizer, device: device.clone() })
    }

    /// The same model with the products of its encoder in that precision, where its backend has it.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.classifier.model.bert.products.precision = precision;
        self
    }

    /// The labels it chooses from.
    pub fn labels(&self) -> &LabelSet {
        &self.classifier.labels
    }

    /// Answers for texts and pairs, in their order.
    ///
    /// # Errors
    /// When a text cannot be tokenized.
    pub fn predict(&self, texts: &[(&str, Option<&str>)]) -> Result<Vec<Prediction>, Error> {
        let encodings = self.tokenizer.encode_all(texts.iter().copied())?;
        let logits = self.logits(&encodings);
        let rows = logits.chunks(self.labels().len());
        Ok(texts.iter().zip(rows).map(|(&texts, logits)| Prediction::new(texts, logits, self.labels())).collect())
    }

    /// Encodes texts as the model was trained to read them.
    ///
    /// # Errors
    /// When a text cannot be tokenized.
    pub fn encode<'a>(
        &self,
        texts: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<Vec<Encoding>, Error> {
        Ok(self.tokenizer.encode_all(texts)?)
    }

    /// # Shapes
    /// - output: row-major `[encodings, num_labels]`
    pub fn logits(&self, encodings: &[Encoding]) -> Vec<f32> {
        let pad_token_id = self.tokenizer.pad_token_id();
        in_batches(&lengths(encodings), BATCH_SIZE, |rows| {
            self.classifier.model.forward(inputs(&pad(encodings, rows, pad_token_id), &self.device))
        })
    }
}
