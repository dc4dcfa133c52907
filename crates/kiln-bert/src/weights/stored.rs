//! Tensors that are used in the form in which they are stored.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_files::Mapped;
use kiln_kernels::{InputRounding, Storage, StoredMatrix, StoredValues};

use super::{FloatType, Place, Stored, Weights};
use crate::Error;

/// Suffix of the name of an int8 tensor's units: for each row, the real value of the integer 1.
pub const UNITS: &str = "_scale";

/// Suffix of the name of an int8 tensor's smoothing, if it has one: for each column, the factor that undoes the smoothing
/// of the weight.
pub const SMOOTHING: &str = "_smoothing";

/// Suffix of the name of an int8 tensor's input range, if its layer rounds the input with a static scale: the smallest and
/// the largest value.
pub const INPUT_RANGE: &str = "_input_range";

impl Weights {
    /// Whether a tensor belongs to an int8 tensor, as its units, its smoothing or its input range.
    pub(crate) fn belongs_to_another(&self, name: &str) -> bool {
        let of = |suffix: &&str| name.strip_suffix(*suffix).and_then(|of| self.tensors.get(of));
        [UNITS, SMOOTHING, INPUT_RANGE].iter().filter_map(of).any(|stored| stored.dtype == FloatType::I8)
    }

    /// The name of a tensor's units, if there is one for each row.
    pub(super) fn units_of(&self, name: &str) -> Option<String> {
        let rows = self.shape(name)?.first()?;
        let units = format!("{name}{UNITS}");
        (self.shape(&units)? == [*rows] && self.is_f32(&units)).then_some(units)
    }

    /// Checks that a tensor has the expected shape. A missing tensor passes.
    ///
    /// # Errors
    /// When it has another shape.
    pub fn check_shape(&self, name: &str, expected: &[usize]) -> Result<(), Error> {
        match self.shape(name) {
            Some(found) if found != expected => Err(Error::Shape {
                path: self.path.clone(),
                name: name.to_owned(),
                found: found.to_vec(),
                expected: expected.to_vec(),
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn dequantized(&self, name: &str, whole: &[u8]) -> Result<Vec<f32>, Error> {
        let units = self.units_of(name).and_then(|units| self.read(&units).transpose()).transpose()?;
        let (units, rounding) = (units.unwrap_or_default(), self.rounding_of(name)?);
        let values: &[i8] = bytemuck::cast_slice(whole);
        Ok(StoredMatrix::Int8 { values, units: &units, rounding: &rounding }.to_f32())
    }

    /// How a layer with this weight rounds its input.
    fn rounding_of(&self, name: &str) -> Result<InputRounding, Error> {
        let [smoothing, input_range] = [SMOOTHING, INPUT_RANGE].map(|suffix| format!("{name}{suffix}"));
        if let Some([_, columns]) = self.shape(name) {
            self.check_shape(&smoothing, &[*columns])?;
        }
        self.check_shape(&input_range, &[2])?;
        let smoothing = self.read(&smoothing)?.unwrap_or_default().into();
        let range = match self.read(&input_range)?.as_deref() {
            None => None,
            Some(&[low, high]) if InputRounding::is_range([low, high]) => Some([low, high]),
            Some(found) => {
                let reason = format!("`{input_range}` is {found:?}; expected a finite range with 0 in it");
                return Err(Error::Damaged { path: self.path.clone(), reason });
            }
        };
        Ok(InputRounding { smoothing, range })
    }

    /// A tensor in its stored form, mapped from its file. None if the form is not one of [`StoredValues`], or the numbers
    /// cannot be read in place. Does not check that the numbers are finite.
    ///
    /// # Errors
    /// When its file cannot be read, or has become shorter.
    pub fn stored(&self, name: &str) -> Result<Option<StoredValues>, Error> {
        let Some(Stored { file, dtype, place: Place::Range { start, end }, .. }) = self.tensors.get(name) else {
            return Ok(None);
        };
        let alignment = match dtype {
            FloatType::F32 => 4,
            FloatType::Bf16 => 2,
            FloatType::I8 if self.units_of(name).is_some() => 1,
            _ => return Ok(None),
        };
        if cfg!(target_endian = "big") || start % alignment != 0 {
            return Ok(None);
        }
        let map = || Mapped::new(&kiln_files::open(file)?, *start..*end);
        let mapped = Arc::new(map().map_err(|source| Error::Read { path: file.clone(), source })?);
        Ok(Some(match (dtype, self.units_of(name)) {
            (FloatType::F32, _) => StoredValues::F32(mapped),
            (FloatType::I8, Some(units)) => {
                let units = self.read(&units)?.unwrap_or_default().into();
                StoredValues::Int8 { values: mapped, units, rounding: self.rounding_of(name)? }
            }
            _ => StoredValues::Bf16(mapped),
        }))
    }
}

/// The weight of a linear layer, in the form in which its file stores it.
#[derive(Debug)]
pub(crate) struct FileWeight {
    weights: Arc<Weights>,
    name: String,
    /// `[input, output]`
    shape: [usize; 2],
    /// The mapped file, until the weight is packed.
    mapped: Mutex<Option<StoredValues>>,
}

impl FileWeight {
    /// Finds a weight; none if the file does not store it in a form that can be used directly.
    ///
    /// # Errors
    /// When the file cannot be read, or the weight has another shape than `[output, input]`.
    pub(crate) fn find(weights: &Arc<Weights>, name: &str, shape: [usize; 2]) -> Result<Option<Self>, Error> {
        let Some(values) = weights.stored(name)? else { return Ok(None) };
        weights.check_shape(name, &[shape[1], shape[0]])?;
        let (weights, name) = (weights.clone(), name.to_owned());
        Ok(Some(Self { weights, name, shape, mapped: Mutex::new(Some(values)) }))
    }
}

impl Storage for FileWeight {
    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn unpack_block(&self, inputs: Range<usize>, outputs: Range<usize>, values: &mut [f32]) {
        let ([input, _], width) = (self.shape, outputs.len());
        let stored = self.stored().expect("`find` has found it");
        let mut row = vec![0.0; inputs.len()];
        for (column, output) in outputs.enumerate() {
            stored.matrix().read(output * input + inputs.start, &mut row);
            values[column..].iter_mut().step_by(width).zip(&row).for_each(|(to, value)| *to = *value);
        }
    }

    /// Maps the file once, not for each block.
    fn unpack_into(&self, values: &mut [f32]) {
        let [input, output] = self.shape;
        let stored = self.stored().expect("`find` has found it");
        crate::load::transpose(&stored.matrix().to_f32(), [output, input], values);
    }

    /// Gives the mapping away, so that nothing of the file stays in memory once the weight is packed.
    fn stored(&self) -> Option<StoredValues> {
        let mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner).take();
        mapped.or_else(|| self.weights.stored(&self.name).expect("the file of a loaded model stays where it is"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::Write;

    use kiln_files::FileWriter;

    use super::*;
    use crate::{StoredTensor, StoredType, save_stored};

    #[test]
    fn a_static_range_is_finite_and_has_zero_in_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("model.safetensors");
        let rounding = |range: &[f32]| {
            let tensor = |name: &str, shape: &[usize], stored_type| StoredTensor {
                name: name.to_owned(),
                shape: shape.to_vec(),
                stored_type,
            };
            let tensors = [
                tensor("w_input_range", &[range.len()], StoredType::F32),
                tensor("w_scale", &[2], StoredType::F32),
                tensor("w", &[2, 3], StoredType::I8),
            ];
            let write = |tensor: &StoredTensor, writer: &mut FileWriter| match tensor.name.as_str() {
                "w" => writer.write_all(&[1, 2, 3, 4, 5, 6]),
                "w_scale" => writer.write_all(&[0.5f32, 2.0].map(f32::to_le_bytes).concat()),
                _ => range.iter().try_for_each(|end| writer.write_all(&end.to_le_bytes())),
            };
            save_stored(&path, &tensors, HashMap::new(), write).expect("it is writable");
            let weights = Weights::from_file(&path).expect("it has a header");
            weights.rounding_of("w").map(|rounding| rounding.range).map_err(|error| error.to_string())
        };
        assert_eq!(rounding(&[-1.0, 0.0]), Ok(Some([-1.0, 0.0])));
        for bad in [[0.5, 1.0], [1.0, -1.0], [-3e38, 3e38]] {
            let message = rounding(&bad).expect_err("it is no range");
            assert!(message.contains("`w_input_range` is [") && message.contains("with 0 in it"), "{message}");
        }
        let message = rounding(&[-1.0, f32::NAN]).expect_err("it is no range");
        assert!(message.contains("`w_input_range` holds NaN"), "{message}");
        let message = rounding(&[-1.0, 0.0, 1.0]).expect_err("it has three ends");
        assert!(message.contains("`w_input_range` has the shape [3]"), "{message}");
    }
}
