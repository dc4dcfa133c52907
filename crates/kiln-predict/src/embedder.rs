use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use kiln_bert::{Bert, BertConfig, Loaded, Weights, load_bert, load_bert_stored};
use kiln_heads::{AdapterBase, Pooling, in_batches, inputs, pool};
use kiln_kernels::{PackedWeights, Precision};
use kiln_tokenize::{Encoding, Tokenizer, lengths, pad};

use crate::predictor::{BATCH_SIZE, check_finite, tokenizer_of, trimmed};
use crate::prepared::Rows;
use crate::{Error, Prepared};

/// A checkpoint that turns texts into vectors. Its head, if it has one, is not used.
#[derive(Clone, Debug)]
pub struct Embedder {
    pub(crate) bert: Bert,
    pub(crate) unused: Vec<String>,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) config: EmbedConfig,
    pub(crate) device: Device,
    /// What errors name.
    pub(crate) folder: PathBuf,
}

/// How vectors are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EmbedConfig {
    /// How a vector is made of the hidden states.
    pub pooling: Pooling,
    /// Whether vectors are divided by their length, so that the dot product of two is their cosine.
    pub normalize: bool,
    /// The precision of the encoder's matrix products, where the backend has it.
    pub precision: Precision,
}

impl EmbedConfig {
    /// Reads a checkpoint of any kind: its encoder and its tokenizer.
    ///
    /// # Errors
    /// When one of them is missing or damaged, the tokenizer does not fit the model, or `pooling` needs a pooler and the
    /// checkpoint has none.
    pub fn load(self, folder: &Path, device: &Device) -> Result<Embedder, Error> {
        let config = BertConfig::from_folder(folder).map_err(kiln_heads::Error::from)?;
        let weights = Weights::from_folder(folder).map_err(kiln_heads::Error::from)?;
        let Loaded { module: mut bert, unused } =
            load_bert(&config, &weights, device).map_err(kiln_heads::Error::from)?;
        bert.products.precision = self.precision;
        bert.products.packed = Some(PackedWeights::default());
        self.with(Loaded { module: bert, unused }, folder, &config, device)
    }

    /// The same with an adapter of the checkpoint, from a folder of Kiln's or peft's.
    ///
    /// # Errors
    /// As [`EmbedConfig::load`], and when the adapter does not fit.
    pub fn load_adapted(self, folder: &Path, adapter: &Path, device: &Device) -> Result<Embedder, Error> {
        self.on_base(&AdapterBase::from_folder(folder, device)?, adapter, device)
    }

    /// [`EmbedConfig::load_adapted`] on a base that other adapters share.
    ///
    /// # Errors
    /// As [`EmbedConfig::load_adapted`].
    pub fn on_base(self, base: &AdapterBase, adapter: &Path, device: &Device) -> Result<Embedder, Error> {
        let (mut bert, config) = base.encoder(adapter, device)?;
        bert.products.precision = self.precision;
        self.with(Loaded { module: bert, unused: Vec::new() }, base.folder(), &config, device)
    }

    /// [`EmbedConfig::load`] for a folder whose files stay as they are: on the CPU the encoder's weights are packed straight
    /// from their file, without a copy of them in f32.
    ///
    /// # Errors
    /// As [`EmbedConfig::load`]. Numbers that are not finite are found in what is computed with them.
    pub fn load_stored(self, folder: &Path, device: &Device) -> Result<Embedder, Error> {
        let config = BertConfig::from_folder(folder).map_err(kiln_heads::Error::from)?;
        let weights = Arc::new(Weights::from_folder(folder).map_err(kiln_heads::Error::from)?);
        let loaded = load_bert_stored(&config, &weights, self.precision, device).map_err(kiln_heads::Error::from)?;
        self.with(loaded, folder, &config, device)
    }

    fn with(
        self,
        Loaded { module: bert, unused }: Loaded<Bert>,
        folder: &Path,
        config: &BertConfig,
        device: &Device,
    ) -> Result<Embedder, Error> {
        let tokenizer = Arc::new(tokenizer_of(folder, config)?);
        let (device, folder) = (device.clone(), folder.to_owned());
        Embedder { bert, unused, tokenizer, config: self, device, folder }.checked()
    }
}

impl Embedder {
    /// The same encoder, in the same memory, with another pooling.
    ///
    /// # Errors
    /// When `pooling` needs a pooler and the checkpoint has none.
    pub fn pooled(&self, pooling: Pooling, normalize: bool) -> Result<Self, Error> {
        Self { config: EmbedConfig { pooling, normalize, ..self.config }, ..self.clone() }.checked()
    }

    pub(crate) fn checked(self) -> Result<Self, Error> {
        match self.config.pooling == Pooling::Pooler && self.bert.pooler.is_none() {
            true => Err(Error::NoPooler { folder: self.folder }),
            false => Ok(self),
        }
    }

    /// The names of the tensors of the folder's weights that the encoder does not use, sorted.
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// Its encoder.
    pub fn bert_mut(&mut self) -> &mut Bert {
        &mut self.bert
    }

    /// How its vectors are made.
    pub fn config(&self) -> EmbedConfig {
        self.config
    }

    /// Encodes as the model reads.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The vectors of texts and pairs, in their order. White space around a text is ignored.
    ///
    /// # Shapes
    /// - output: row-major `[texts, hidden]`
    ///
    /// # Errors
    /// When a text cannot be tokenized, or gives a vector that is not finite.
    pub fn embed(&self, texts: &[(&str, Option<&str>)]) -> Result<Vec<f32>, Error> {
        let encodings = self.tokenizer.encode_all(trimmed(texts))?;
        let vectors = self.vectors(&encodings);
        for ((text, _), vector) in texts.iter().zip(vectors.chunks(self.width())) {
            check_finite(text, vector)?;
        }
        Ok(vectors)
    }

    /// Tokenizes a text or a pair; [`Embedder::compute`] does the rest.
    ///
    /// # Errors
    /// When it cannot be tokenized.
    pub fn prepare(&self, text: &str, text_pair: Option<&str>) -> Result<Prepared, Error> {
        let (text, text_pair) = (text.trim(), text_pair.map(str::trim));
        let rows = Rows::Whole(self.tokenizer.encode(text, text_pair)?);
        Ok(Prepared { text: text.to_owned(), text_pair: text_pair.map(str::to_owned), rows, top: None })
    }

    /// The vectors of texts that [`Embedder::prepare`] has tokenized, each by itself.
    ///
    /// # Shapes
    /// - output: for each text `[hidden]`
    ///
    /// # Panics
    /// When a text was prepared for something else.
    pub fn compute(&self, texts: &[&Prepared]) -> Vec<Result<Vec<f32>, Error>> {
        let encodings: Vec<Encoding> = texts.iter().map(|text| text.whole().clone()).collect();
        let vectors = self.vectors(&encodings);
        let checked = |(text, vector): (&&Prepared, &[f32])| {
            check_finite(text.text(), vector)?;
            Ok(vector.to_vec())
        };
        texts.iter().zip(vectors.chunks(self.width())).map(checked).collect()
    }

    /// # Shapes
    /// - output: row-major `[encodings, hidden]`
    fn vectors(&self, encodings: &[Encoding]) -> Vec<f32> {
        let pad_token_id = self.tokenizer.pad_token_id();
        let mut vectors = in_batches(&lengths(encodings), BATCH_SIZE, |rows| {
            pool(&self.bert, inputs(&pad(encodings, rows, pad_token_id), &self.device), self.config.pooling)
        });
        if self.config.normalize {
            for vector in vectors.chunks_mut(self.width()) {
                let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
                vector.iter_mut().for_each(|x| *x /= length);
            }
        }
        vectors
    }

    /// How many numbers a vector has.
    pub fn width(&self) -> usize {
        self.bert.hidden_size()
    }
}

/// The cosine of the angle between two vectors; 0 where one is all zeros.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let lengths = (product(a, a) * product(b, b)).sqrt();
    if lengths > 0.0 { product(a, b) / lengths } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_by_hand() {
        assert_eq!(cosine(&[3.0, 4.0], &[6.0, 8.0]), 1.0);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), 0.0);
        assert!((cosine(&[1.0, 0.0], &[-1.0, 1.0]) + 0.5f64.sqrt()).abs() < 1e-12);
        assert_eq!(cosine(&[0.0], &[1.0]), 0.0);
    }
}
