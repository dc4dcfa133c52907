//! Tensors that are computed with as they are stored.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_files::Mapped;
use kiln_kernels::{Storage, StoredMatrix, StoredValues};

use super::{FloatType, Place, Stored, Weights};
use crate::Error;

/// What stands behind a tensor's name in that of its units: the real value of 1 in each of its rows.
pub const UNITS: &str = "_scale";

/// What stands behind a tensor's name in that of its smoothing, if it has one: what each of its columns is multiplied with to
/// be as it was before it was smoothed.
pub const SMOOTHING: &str = "_smoothing";

impl Weights {
    /// Whether a tensor belongs to another one of whole numbers: its units, or its smoothing.
    pub(crate) fn belongs_to_another(&self, name: &str) -> bool {
        let of = |suffix: &&str| name.strip_suffix(*suffix).and_then(|of| self.tensors.get(of));
        [UNITS, SMOOTHING].iter().filter_map(of).any(|stored| stored.dtype == FloatType::I8)
    }

    /// The name of a tensor's units, where it has as many as rows.
    pub(super) fn units_of(&self, name: &str) -> Option<String> {
        let rows = self.shape(name)?.first()?;
        let units = format!("{name}{UNITS}");
        (self.shape(&units)? == [*rows] && self.is_f32(&units)).then_some(units)
    }

    /// Whether a tensor has the shape that the config gives it.
    ///
    /// # Errors
    /// When it has another one.
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
        let (units, smoothing) = (units.unwrap_or_default(), self.smoothing_of(name)?);
        let values: &[i8] = bytemuck::cast_slice(whole);
        Ok(StoredMatrix::Int8 { values, units: &units, smoothing: &smoothing }.to_f32())
    }

    /// What a tensor's columns are multiplied with to be as they were; empty where they are.
    fn smoothing_of(&self, name: &str) -> Result<Vec<f32>, Error> {
        let smoothing = format!("{name}{SMOOTHING}");
        if let Some([_, columns]) = self.shape(name) {
            self.check_shape(&smoothing, &[*columns])?;
        }
        Ok(self.read(&smoothing)?.unwrap_or_default())
    }

    /// A tensor as it is stored, mapped where its numbers can be read in place; none where it has another form than those
    /// of [`StoredValues`]. Whether its numbers are finite is not looked at.
    ///
    /// # Errors
    /// When its file cannot be read or has become shorter.
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
                StoredValues::Int8 { values: mapped, units, smoothing: self.smoothing_of(name)?.into() }
            }
            _ => StoredValues::Bf16(mapped),
        }))
    }
}

/// The weight of a linear layer, as a file holds it.
#[derive(Debug)]
pub(crate) struct FileWeight {
    weights: Arc<Weights>,
    name: String,
    /// `[input, output]`
    shape: [usize; 2],
    /// Mapped until it is packed.
    mapped: Mutex<Option<StoredValues>>,
}

impl FileWeight {
    /// None where the file does not hold it in a form that is computed with.
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

    /// The file is mapped once, not for each block.
    fn unpack_into(&self, values: &mut [f32]) {
        let [input, output] = self.shape;
        let stored = self.stored().expect("`find` has found it");
        crate::load::transpose(&stored.matrix().to_f32(), [output, input], values);
    }

    /// Once it is packed, nothing of the file stays in memory.
    fn stored(&self) -> Option<StoredValues> {
        let mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner).take();
        mapped.or_else(|| self.weights.stored(&self.name).expect("the file of a loaded model stays where it is"))
    }
}
