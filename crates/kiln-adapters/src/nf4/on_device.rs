//! NF4 on a GPU: codes and maxima are kept in its memory and unpacked there for each product.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::{BLOCK, CODEBOOK, Nf4};

/// A copy of a matrix, without autodiff, on the device that last requested it.
#[derive(Debug, Default)]
pub(super) struct OnDevice(Mutex<Option<Copied>>);

#[derive(Clone, Debug)]
struct Copied {
    device: Device,
    /// Eight codes per integer, the first in the lowest bits; padded to whole blocks.
    codes: Tensor<1, Int>,
    /// One per block.
    absmax: Tensor<1>,
}

/// A clone starts without a copy and makes its own on demand.
impl Clone for OnDevice {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// The copy is derived from the matrix, so comparisons ignore it.
impl PartialEq for OnDevice {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Number of codes in one 32-bit integer.
const CODES: usize = 8;

impl OnDevice {
    /// The matrix as a tensor `[input, output]`.
    pub(super) fn tensor(&self, matrix: &Nf4, device: &Device) -> Tensor<2> {
        let plain = device.clone().inner();
        let copied = {
            let mut copied = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            copied.take_if(|copied| copied.device != plain);
            copied.get_or_insert_with(|| Copied::new(matrix, plain.clone())).clone()
        };
        let values = copied.unpacked(matrix.shape).transpose();
        if device.is_autodiff() { Tensor::from_inner(values) } else { values }
    }
}

impl Copied {
    fn new(matrix: &Nf4, device: Device) -> Self {
        let mut halves: Vec<u8> = matrix.codes.iter().flat_map(|byte| [byte >> 4, byte & 15]).collect();
        halves.resize(halves.len().next_multiple_of(BLOCK), 0);
        let join =
            |codes: &[u8]| codes.iter().rev().fold(0, |joined, code| joined << 4 | u32::from(*code)).cast_signed();
        let codes: Vec<i32> = halves.chunks_exact(CODES).map(join).collect();
        let (codes, absmax) = (vector(codes), vector(matrix.absmax.values()));
        Self { codes: Tensor::from_data(codes, &device), absmax: Tensor::from_data(absmax, &device), device }
    }

    /// `[output, input]`
    fn unpacked(self, [output, input]: [usize; 2]) -> Tensor<2> {
        let Self { device, codes, absmax } = self;
        let ([joined], [blocks]) = (codes.dims(), absmax.dims());
        let shifts = (0..CODES as i32).map(|at| 4 * at).collect();
        let shifts = Tensor::<1, Int>::from_data(vector::<i32>(shifts), &device).reshape([1, CODES]);
        let codes = codes.reshape([joined, 1]).expand([joined, CODES]);
        let codes = codes.bitwise_right_shift(shifts.expand([joined, CODES])).bitwise_and_scalar(15);
        let units =
            Tensor::<1>::from_data(vector(CODEBOOK.to_vec()), &device).select(0, codes.reshape([joined * CODES]));
        let values = units.reshape([blocks, BLOCK]) * absmax.reshape([blocks, 1]);
        values.reshape([blocks * BLOCK]).narrow(0, 0, output * input).reshape([output, input])
    }
}

fn vector<T: burn::tensor::Element>(values: Vec<T>) -> TensorData {
    let len = values.len();
    TensorData::new(values, [len])
}

#[cfg(test)]
mod tests {
    use kiln_backend::{Backend, Flex};
    use kiln_kernels::Storage;

    use super::*;

    #[test]
    fn a_device_unpacks_what_slices_unpack() {
        for (shape, is_nested) in [([13, 7], false), ([64, 3], true), ([1, 1], false), ([40, 65], true)] {
            let values: Vec<f32> = (0..shape[0] * shape[1]).map(|at| (at as f32 * 1.7).sin() * 0.3).collect();
            let matrix = Nf4::new(&values, shape, is_nested);
            for device in [Flex::device(0), Flex::device(0).autodiff()] {
                for _ in 0..2 {
                    let tensor = matrix.tensor(&device);
                    assert_eq!((tensor.dims(), tensor.is_autodiff()), (matrix.shape(), device.is_autodiff()));
                    let unpacked = tensor.into_data().try_into_vec::<f32>().expect("it is f32");
                    assert_eq!(unpacked, matrix.unpack(), "{shape:?}");
                }
            }
        }
    }
}
