use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use kiln_bert::{Bert, BertConfig, Loaded, Weights, load_bert, load_bert_stored};
use kiln_heads::{AdapterBase, Pooling, in_batches, inputs, pool};
use kiln_kernels::{PackedWeights, Precision};
use kiln_tokenize::{Encoding, Tokenizer, default_prompt, lengths, pad};

use crate::predictor::{BATCH_SIZE, as_trained, check_finite, fitted, trimmed};
use crate::prepared::Rows;
use crate::{Error, Prepared};

/// An encoder that computes embeddings of texts. The checkpoint's head is not used.
#[derive(Clone, Debug)]
pub struct Embedder {
    pub(crate) bert: Bert,
    pub(crate) unused: Vec<String>,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) config: EmbedConfig,
    pub(crate) device: Device,
    /// Precedes each text.
    pub(crate) prompt: String,
    /// The folder for error messages.
    pub(crate) folder: PathBuf,
}

/// How to compute embeddings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EmbedConfig {
    /// How the hidden states are pooled into a vector.
    pub pooling: Pooling,
    /// Whether vectors are normalized to length 1, so that the dot product of two vectors is their cosine.
    pub normalize: bool,
    /// The precision of the encoder's matrix products, if the backend supports it.
    pub precision: Precision,
}

impl EmbedConfig {
    /// Reads the encoder and the tokenizer of a checkpoint with any head. The maximum length of a text is that of
    /// sentence-transformers, if the checkpoint has its files, and its [default prompt](default_prompt) precedes each text.
    ///
    /// # Errors
    /// When a file is missing or damaged, the tokenizer does not fit the model, or `pooling` needs a pooler and the
    /// checkpoint has none.
    pub fn load(self, folder: &Path, device: &Device) -> Result<Embedder, Error> {
        let config = BertConfig::from_folder(folder).map_err(kiln_heads::Error::from)?;
        let weights = Weights::from_folder(folder).map_err(kiln_heads::Error::from)?;
        let Loaded { module: mut bert, unused } =
            load_bert(&config, &weights, device).map_err(kiln_heads::Error::from)?;
        bert.products.precision = self.precision;
        bert.products.packed = Some(PackedWeights::default());
        let tokenizer = Tokenizer::from_sentence_folder(folder)?;
        self.with(Loaded { module: bert, unused }, tokenizer, (folder, &config), device)
    }

    /// [`EmbedConfig::load`] with an adapter of the checkpoint that Kiln or peft has saved.
    ///
    /// # Errors
    /// As [`EmbedConfig::load`], and when the adapter does not fit the checkpoint.
    pub fn load_adapted(self, folder: &Path, adapter: &Path, device: &Device) -> Result<Embedder, Error> {
        self.on_base(&AdapterBase::from_folder(folder, device)?, adapter, device)
    }

    /// [`EmbedConfig::load_adapted`] with a base that several adapters share.
    ///
    /// # Errors
    /// As [`EmbedConfig::load_adapted`].
    pub fn on_base(self, base: &AdapterBase, adapter: &Path, device: &Device) -> Result<Embedder, Error> {
        let (mut bert, config) = base.encoder(adapter, device)?;
        bert.products.precision = self.precision;
        let tokenizer = as_trained(Tokenizer::from_sentence_folder(base.folder())?, adapter)?;
        self.with(Loaded { module: bert, unused: Vec::new() }, tokenizer, (base.folder(), &config), device)
    }

    /// [`EmbedConfig::load`] for a folder whose files do not change. On the CPU, the encoder's weights are packed directly
    /// from their file, without an f32 copy.
    ///
    /// # Errors
    /// As [`EmbedConfig::load`], except that weights that are not finite are not detected here, but in the computed vectors.
    pub fn load_stored(self, folder: &Path, device: &Device) -> Result<Embedder, Error> {
        let config = BertConfig::from_folder(folder).map_err(kiln_heads::Error::from)?;
        let weights = Arc::new(Weights::from_folder(folder).map_err(kiln_heads::Error::from)?);
        let loaded = load_bert_stored(&config, &weights, self.precision, device).map_err(kiln_heads::Error::from)?;
        self.with(loaded, Tokenizer::from_sentence_folder(folder)?, (folder, &config), device)
    }

    fn with(
        self,
        Loaded { module: bert, unused }: Loaded<Bert>,
        tokenizer: Tokenizer,
        (folder, config): (&Path, &BertConfig),
        device: &Device,
    ) -> Result<Embedder, Error> {
        let tokenizer = Arc::new(fitted(tokenizer, config)?);
        let prompt = default_prompt(folder)?;
        let (device, folder) = (device.clone(), folder.to_owned());
        Embedder { bert, unused, tokenizer, config: self, device, prompt, folder }.checked()
    }
}

impl Embedder {
    /// The same encoder with another pooling. The weights are shared.
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

    /// The encoder, mutable.
    pub fn bert_mut(&mut self) -> &mut Bert {
        &mut self.bert
    }

    /// The embedding settings.
    pub fn config(&self) -> EmbedConfig {
        self.config
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Computes the vectors of texts and pairs, in their order. Surrounding white space of a text is ignored.
    ///
    /// # Shapes
    /// - output: row-major `[texts, hidden]`
    ///
    /// # Errors
    /// When a text cannot be tokenized, or its vector is not finite.
    pub fn embed(&self, texts: &[(&str, Option<&str>)]) -> Result<Vec<f32>, Error> {
        let texts = trimmed(texts);
        let prompted: Vec<_> = texts.iter().map(|(text, text_pair)| (self.prompted(text), *text_pair)).collect();
        let encodings = self.tokenizer.encode_all(prompted.iter().map(|(text, text_pair)| (&**text, *text_pair)))?;
        let vectors = self.vectors(&encodings);
        for ((text, _), vector) in texts.iter().zip(vectors.chunks(self.width())) {
            check_finite(text, vector)?;
        }
        Ok(vectors)
    }

    /// Tokenizes a text or a pair. [`Embedder::compute`] takes the result.
    ///
    /// # Errors
    /// When the text cannot be tokenized.
    pub fn prepare(&self, text: &str, text_pair: Option<&str>) -> Result<Prepared, Error> {
        let (text, text_pair) = (text.trim(), text_pair.map(str::trim));
        let rows = Rows::Whole(self.tokenizer.encode(&self.prompted(text), text_pair)?);
        Ok(Prepared { text: text.to_owned(), text_pair: text_pair.map(str::to_owned), rows, top: None })
    }

    /// Computes the vectors of texts from [`Embedder::prepare`]. Each text has its own result.
    ///
    /// # Shapes
    /// - output: `[hidden]` for each text
    ///
    /// # Panics
    /// When a text was prepared in windows, for another task.
    pub fn compute(&self, texts: &[&Prepared]) -> Vec<Result<Vec<f32>, Error>> {
        let encodings: Vec<Encoding> = texts.iter().map(|text| text.whole().clone()).collect();
        let vectors = self.vectors(&encodings);
        let checked = |(text, vector): (&&Prepared, &[f32])| {
            check_finite(text.text(), vector)?;
            Ok(vector.to_vec())
        };
        texts.iter().zip(vectors.chunks(self.width())).map(checked).collect()
    }

    /// The text after the prompt.
    fn prompted<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.prompt.is_empty() { text.into() } else { format!("{}{text}", self.prompt).into() }
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

    /// The width of a vector.
    pub fn width(&self) -> usize {
        self.bert.hidden_size()
    }
}

/// The cosine similarity of two vectors, or 0 if one of them is zero.
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
