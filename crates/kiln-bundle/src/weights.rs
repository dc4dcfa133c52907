//! The weights of a bundle.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use half::bf16;
use kiln_bert::{
    BertConfig, INPUT_RANGE, SMOOTHING, StoredTensor, StoredType, UNITS, Weights, save_stored, stored_tensors,
};
use kiln_kernels::{Precision, quantize_rows};
use serde_json::Value;

use crate::Error;
use crate::smoothing::Smoothing;

/// The model whose weights are written to a bundle.
#[derive(Debug)]
pub(crate) struct ModelWeights {
    /// The folder of the model.
    pub model: PathBuf,
    /// The tensors that the model does not use.
    pub unused: Vec<String>,
    /// The precision of the bundle.
    pub precision: Precision,
}

/// The file name of the weights in a bundle.
pub(crate) const WEIGHTS: &str = "model.safetensors";

impl ModelWeights {
    /// Writes the tensors that the model uses. The linear layers of the encoder and the word embeddings have the precision
    /// of the bundle, and everything else is f32. In int8 each row of a matrix (an output of a layer, or a token) has its
    /// own scale, in a tensor with the matrix's name and `_scale`. The smoothing factors of the matrix's input are in
    /// `_smoothing`, and the static range of the input is in `_input_range`.
    pub(crate) fn write(&self, smoothing: &Smoothing, out: &Path, device: &Device) -> Result<(), Error> {
        let (config, weights) = (BertConfig::from_folder(&self.model)?, Weights::from_folder(&self.model)?);
        let mut compact: BTreeSet<String> = stored_tensors(&config, &weights, device)?.into_iter().collect();
        let decoder = config.tensor_name("cls.predictions.decoder.weight");
        let is_tied = config.extra.get("tie_word_embeddings") != Some(&Value::Bool(false));
        // A tied decoder is a copy of the word embeddings.
        let is_copy = is_tied && is_copy(&weights, &decoder, &config)?;
        let is_left_out =
            |name: &&str| self.unused.iter().any(|unused| unused == name) || (is_copy && *name == decoder);
        let used: Vec<&str> = weights.names().filter(|name| !is_left_out(name)).collect();
        compact.insert(decoder.clone());
        let file = TensorFile { weights: &weights, compact: &compact, precision: self.precision, smoothing };
        file.write(&used, &out.join(WEIGHTS))?;
        let head = self.model.join("head.safetensors");
        if head.exists() {
            let (weights, compact) = (Weights::from_file(&head)?, BTreeSet::new());
            let file = TensorFile { weights: &weights, compact: &compact, ..file };
            file.write(&weights.names().collect::<Vec<_>>(), &out.join("head.safetensors"))?;
        }
        Ok(())
    }
}

fn is_copy(weights: &Weights, decoder: &str, config: &BertConfig) -> Result<bool, Error> {
    let words = config.tensor_name("embeddings.word_embeddings.weight");
    let words = [config.family().prefix, ""].map(|prefix| format!("{prefix}{words}"));
    let words = words.iter().find(|name| weights.shape(name).is_some());
    match (weights.read(decoder)?, words) {
        (Some(decoder), Some(words)) => Ok(weights.read(words)?.is_some_and(|words| words == decoder)),
        _ => Ok(false),
    }
}

/// The contents of a file of tensors.
struct TensorFile<'a> {
    weights: &'a Weights,
    /// The names of the tensors that are stored in `precision`. The others are f32.
    compact: &'a BTreeSet<String>,
    precision: Precision,
    smoothing: &'a Smoothing,
}

impl TensorFile<'_> {
    fn write(&self, names: &[&str], path: &Path) -> Result<(), Error> {
        let mut tensors = self.described(names);
        // The widest types come first, so that all tensors are aligned and can be used from a mapped file.
        let width = |tensor: &StoredTensor| match tensor.stored_type {
            StoredType::F32 => 0,
            StoredType::F16 | StoredType::Bf16 => 1,
            StoredType::I8 => 2,
        };
        tensors.sort_by(|a, b| width(a).cmp(&width(b)).then_with(|| a.name.cmp(&b.name)));
        let header = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        save_stored(path, &tensors, header, |tensor, writer| writer.write_all(&self.bytes(tensor)?))?;
        Ok(())
    }

    fn described(&self, names: &[&str]) -> Vec<StoredTensor> {
        let mut tensors = Vec::new();
        for &name in names {
            let shape = self.shape(name).to_vec();
            let stored_type = match self.precision {
                Precision::Bf16 if self.compact.contains(name) => StoredType::Bf16,
                Precision::Int8 if self.compact.contains(name) => {
                    let mut push = |suffix: &str, length: usize| {
                        let (name, shape) = (format!("{name}{suffix}"), vec![length]);
                        tensors.push(StoredTensor { name, shape, stored_type: StoredType::F32 });
                    };
                    push(UNITS, shape[0]);
                    if let Some(factors) = self.smoothing.of_input(name) {
                        push(SMOOTHING, factors.len());
                    }
                    if let Some(range) = self.smoothing.range_of_input(name) {
                        push(INPUT_RANGE, range.len());
                    }
                    StoredType::I8
                }
                _ => StoredType::F32,
            };
            tensors.push(StoredTensor { name: name.to_owned(), shape, stored_type });
        }
        tensors
    }

    fn bytes(&self, tensor: &StoredTensor) -> io::Result<Vec<u8>> {
        // A tensor that the model does not have belongs to one of its matrices.
        let matrix = |suffix: &str| match self.weights.shape(&tensor.name) {
            Some(_) => None,
            None => tensor.name.strip_suffix(suffix),
        };
        let described = "it is described because it is there";
        let values = if let Some(matrix) = matrix(UNITS) {
            self.quantized(matrix)?.1
        } else if let Some(matrix) = matrix(SMOOTHING) {
            self.smoothing.of_input(matrix).expect(described).to_vec()
        } else if let Some(matrix) = matrix(INPUT_RANGE) {
            self.smoothing.range_of_input(matrix).expect(described).to_vec()
        } else if tensor.stored_type == StoredType::I8 {
            return Ok(self.quantized(&tensor.name)?.0.into_iter().map(i8::cast_unsigned).collect());
        } else {
            self.read(&tensor.name)?
        };
        Ok(match tensor.stored_type {
            StoredType::Bf16 => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        })
    }

    fn shape(&self, name: &str) -> &[usize] {
        self.weights.shape(name).expect("it is one of the names")
    }

    fn read(&self, name: &str) -> io::Result<Vec<f32>> {
        let mut values = self.weights.read(name).map_err(io::Error::other)?.expect("it is one of the names");
        self.smoothing.apply(name, &mut values);
        Ok(values)
    }

    fn quantized(&self, name: &str) -> io::Result<(Vec<i8>, Vec<f32>)> {
        Ok(quantize_rows(&self.read(name)?, self.shape(name)[1]))
    }
}
