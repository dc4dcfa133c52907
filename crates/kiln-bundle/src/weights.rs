//! The weights of a bundle.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use half::bf16;
use kiln_bert::{StoredTensor, StoredType, Weights, save_stored};
use kiln_kernels::{Precision, quantize_rows};

use crate::Error;

/// Writes the tensors that the model uses: the linear layers of the encoder and the word embeddings in the precision of the
/// bundle, everything else in f32. In int8 each row of a matrix, an output of a layer or a token, has a unit of its own, in
/// a tensor of the matrix's name and `_scale`.
pub(crate) fn write_weights(model: &Path, out: &Path, precision: Precision, unused: &[String]) -> Result<(), Error> {
    let weights = Weights::from_folder(model)?;
    let is_used = |name: &&str| !unused.iter().any(|unused| unused == name) && !is_copy(&weights, name);
    let used: Vec<&str> = weights.names().filter(is_used).collect();
    write_file(&weights, &used, precision, &out.join("model.safetensors"))?;
    let head = model.join("head.safetensors");
    if head.exists() {
        let weights = Weights::from_file(&head)?;
        write_file(&weights, &weights.names().collect::<Vec<_>>(), precision, &out.join("head.safetensors"))?;
    }
    Ok(())
}

const WORDS: &str = "embeddings.word_embeddings.weight";
const DECODER: &str = "cls.predictions.decoder.weight";

/// Whether a matrix is stored in the bundle's precision.
fn is_compact(name: &str, shape: &[usize]) -> bool {
    let own_name = name.strip_prefix("bert.").unwrap_or(name);
    let is_matrix = shape.len() == 2 && own_name.ends_with(".weight");
    is_matrix && (own_name.starts_with("encoder.layer.") || own_name == WORDS || name == DECODER)
}

/// Whether a tensor is the word embeddings once more, as the decoder of a masked language model that is tied to them.
fn is_copy(weights: &Weights, name: &str) -> bool {
    let words = [WORDS.to_owned(), format!("bert.{WORDS}")].into_iter().find(|words| weights.shape(words).is_some());
    name == DECODER
        && words.is_some_and(|words| matches!((weights.read(name), weights.read(&words)), (Ok(a), Ok(b)) if a == b))
}

/// What is behind a matrix's name in that of its units.
const UNITS: &str = "_scale";

fn write_file(weights: &Weights, names: &[&str], precision: Precision, path: &Path) -> Result<(), Error> {
    let mut tensors: Vec<StoredTensor> = Vec::new();
    for &name in names {
        let shape = weights.shape(name).expect("it is one of the names").to_vec();
        let stored_type = match precision {
            Precision::Bf16 if is_compact(name, &shape) => StoredType::Bf16,
            Precision::Int8 if is_compact(name, &shape) => {
                let (name, shape) = (format!("{name}{UNITS}"), vec![shape[0]]);
                tensors.push(StoredTensor { name, shape, stored_type: StoredType::F32 });
                StoredType::I8
            }
            _ => StoredType::F32,
        };
        tensors.push(StoredTensor { name: name.to_owned(), shape, stored_type });
    }
    // The widest numbers first, so that all are aligned and can be read where they are.
    let width = |tensor: &StoredTensor| match tensor.stored_type {
        StoredType::F32 => 0,
        StoredType::F16 | StoredType::Bf16 => 1,
        StoredType::I8 => 2,
    };
    tensors.sort_by(|a, b| width(a).cmp(&width(b)).then_with(|| a.name.cmp(&b.name)));
    let header = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    save_stored(path, &tensors, header, |tensor, writer| {
        let read = |name: &str| weights.read(name).map_err(io::Error::other);
        let quantized = |name: &str| -> io::Result<(Vec<i8>, Vec<f32>)> {
            let columns = weights.shape(name).expect("it is one of the names")[1];
            Ok(quantize_rows(&read(name)?.expect("it is one of the names"), columns))
        };
        let matrix = tensor.name.strip_suffix(UNITS).filter(|_| weights.shape(&tensor.name).is_none());
        let values = match (matrix, tensor.stored_type) {
            (Some(matrix), _) => quantized(matrix)?.1,
            (None, StoredType::I8) => {
                let (whole, _) = quantized(&tensor.name)?;
                return writer.write_all(&whole.into_iter().map(i8::cast_unsigned).collect::<Vec<u8>>());
            }
            (None, _) => read(&tensor.name)?.expect("it is one of the names"),
        };
        let bytes: Vec<u8> = match tensor.stored_type {
            StoredType::Bf16 => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        };
        writer.write_all(&bytes)
    })?;
    Ok(())
}
