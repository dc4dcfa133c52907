use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use kiln_bert::{NamedParameter, Weights, save_with_note};
use kiln_eval::SplitReport;
use kiln_heads::{Calibration, ClassificationHead, SequenceClassifier, in_batches, inputs};
use kiln_tokenize::pad;
use sha2::{Digest, Sha256};

use crate::{BatchLoss, Dataset, Encoded, Error, EvaluationSet, Targets, TrainingSet};

/// Encoder features for training a head: the pooled output of a frozen encoder for each row.
#[derive(Clone, Debug)]
pub struct Features {
    /// Row-major `[rows, width]`.
    values: Vec<f32>,
    width: usize,
    lengths: Vec<usize>,
    targets: Targets,
}

impl Dataset for Features {
    fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// The number of tokens of each row that the encoder read. A head does not need batches of similar length.
    fn lengths(&self, rows: Range<usize>) -> Cow<'_, [usize]> {
        Cow::Borrowed(&self.lengths[rows])
    }
}

impl TrainingSet for Features {
    type Model = ClassificationHead;

    fn loss(&self, head: &ClassificationHead, rows: &[usize], device: &Device) -> BatchLoss {
        self.targets.loss(self.logits(head, rows, device), rows, device)
    }
}

impl EvaluationSet<ClassificationHead> for Features {
    /// Logits, row-major `[rows, num_labels]`.
    type Output = Vec<f32>;

    fn output(&self, head: &ClassificationHead, batch_size: usize, device: &Device) -> Vec<f32> {
        in_batches(&self.lengths, batch_size, |rows| self.logits(head, rows, device))
    }

    fn report(&self, logits: &Vec<f32>) -> Result<SplitReport, kiln_eval::Error> {
        self.targets.report(logits)
    }

    fn calibration(&self, logits: &Vec<f32>) -> Option<Calibration> {
        self.targets.calibration(logits)
    }

    fn calibrated_report(
        &self,
        logits: &Vec<f32>,
        calibration: Option<&Calibration>,
    ) -> Result<SplitReport, kiln_eval::Error> {
        self.targets.calibrated_report(logits, calibration)
    }
}

impl Features {
    /// Features from given values. Each row counts as one token.
    ///
    /// # Shapes
    /// - `values`: row-major `[rows, width]`
    ///
    /// # Panics
    /// When there is not a row for each target.
    pub fn new(values: Vec<f32>, width: usize, targets: Targets) -> Self {
        assert_eq!(values.len(), targets.len() * width, "a row of features for each target");
        Self { lengths: vec![1; targets.len()], values, width, targets }
    }

    /// A subset of the rows, by index, with new targets.
    ///
    /// # Panics
    /// When there is not one target for each row.
    pub fn pick(&self, rows: &[usize], targets: Targets) -> Self {
        assert_eq!(rows.len(), targets.len(), "a target for each row");
        let values = rows.iter().flat_map(|&row| self.row(row)).copied().collect();
        Self { values, width: self.width, lengths: rows.iter().map(|&row| self.lengths[row]).collect(), targets }
    }

    /// Numbers per row: the encoder's hidden size.
    pub fn width(&self) -> usize {
        self.width
    }

    fn logits(&self, head: &ClassificationHead, rows: &[usize], device: &Device) -> Tensor<2> {
        let values: Vec<f32> = rows.iter().flat_map(|&row| self.row(row)).copied().collect();
        head.forward(Tensor::from_data(TensorData::new(values, [rows.len(), self.width]), device))
    }

    /// The features of a row, `[width]`.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..(row + 1) * self.width]
    }
}

/// The cache of features on disk. A second run with the same encoder and data reads them instead of computing them.
#[derive(Clone, Debug)]
pub struct FeatureCache {
    /// The folder, with one file for each combination of model, data, maximum length and pooling.
    pub folder: PathBuf,
    /// A hash of the encoder's weights and config.
    pub encoder_hash: String,
}

/// How features are computed.
#[derive(Clone, Debug)]
pub struct FeaturesConfig {
    /// Rows per batch.
    pub batch_size: usize,
    /// The cache. `None`: the features are always computed.
    pub cache: Option<FeatureCache>,
}

/// The name of the feature tensor in a cache file.
const TENSOR: &str = "features";

impl Features {
    /// Reads the features from the cache or, if they are not there, runs the encoder over all rows and writes them to the
    /// cache. Also returns whether they were read from the cache. `progress` is called after each batch with the number of
    /// processed rows.
    ///
    /// # Errors
    /// When the cache folder cannot be written. The features of a damaged cache file are computed again.
    pub fn compute(
        model: &SequenceClassifier,
        rows: &Encoded,
        config: &FeaturesConfig,
        device: &Device,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(Self, bool), Error> {
        let file =
            config.cache.as_ref().map(|cache| cache.folder.join(format!("{}.safetensors", key(cache, model, rows))));
        let (count, width) = (rows.targets().len(), model.bert.hidden_size());
        let kept = file.as_ref().and_then(|file| read_whole(file, [count, width]));
        let is_kept = kept.is_some();
        let values = match kept {
            Some(values) => values,
            None => {
                let mut done = 0;
                in_batches(&rows.lengths(0..rows.rows()), config.batch_size, |batch| {
                    let output =
                        model.pooled_output(inputs(&pad(rows.encodings(), batch, rows.pad_token_id()), device));
                    done += batch.len();
                    progress(done);
                    output
                })
            }
        };
        if let Some(file) = file.filter(|_| !is_kept) {
            let folder = file.parent().expect("a cache file lies in the cache's folder");
            std::fs::create_dir_all(folder).map_err(|source| Error::Folder { path: folder.to_owned(), source })?;
            let tensor = NamedParameter { name: TENSOR.to_owned(), shape: vec![count, width], values: values.clone() };
            save_with_note(&file, &[tensor], digest(&values))?;
        }
        let features =
            Self { values, width, lengths: rows.lengths(0..rows.rows()).into_owned(), targets: rows.targets().clone() };
        Ok((features, is_kept))
    }
}

/// The features in a cache file, if their shape is `shape` and they match the hash in the file.
fn read_whole(file: &Path, shape: [usize; 2]) -> Option<Vec<f32>> {
    let weights = Weights::from_file(file).ok()?;
    let values = weights.read(TENSOR).ok()??;
    let is_whole = weights.shape(TENSOR)? == shape && weights.note()? == digest(&values);
    is_whole.then_some(values)
}

/// SHA-256 of the values, in hexadecimal.
fn digest(values: &[f32]) -> String {
    let mut hash = Sha256::new();
    for value in values {
        hash.update(value.to_le_bytes());
    }
    hex(hash)
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A hash of everything that features depend on: the encoder, its precision, the pooling, and all tokens.
fn key(cache: &FeatureCache, model: &SequenceClassifier, rows: &Encoded) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("features 2 {} {:?} {:?}", cache.encoder_hash, model.pooling, model.bert.products.precision));
    for encoding in rows.encodings() {
        hash.update((encoding.input_ids.len() as u64).to_le_bytes());
        for (id, segment) in encoding.input_ids.iter().zip(&encoding.token_type_ids) {
            hash.update(id.to_le_bytes());
            hash.update(segment.to_le_bytes());
        }
    }
    hex(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_features_that_were_written_are_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("features.safetensors");
        let values: Vec<f32> = (0..6).map(|i| i as f32 / 4.0).collect();
        let tensor = NamedParameter { name: TENSOR.to_owned(), shape: vec![2, 3], values: values.clone() };
        save_with_note(&path, &[tensor], digest(&values)).expect("the folder is writable");
        assert_eq!(read_whole(&path, [2, 3]), Some(values));
        assert_eq!(read_whole(&path, [3, 2]), None, "another shape");

        let mut bytes = std::fs::read(&path).expect("it was written");
        *bytes.last_mut().expect("it is not empty") ^= 1;
        std::fs::write(&path, bytes).expect("it is writable");
        assert_eq!(read_whole(&path, [2, 3]), None, "another number");
    }
}
