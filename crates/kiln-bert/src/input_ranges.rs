use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Tensor;

/// The smallest and the largest value of each channel over all inputs of a linear layer. Clones share the values.
#[derive(Clone, Debug, Default)]
pub struct InputRanges(Arc<Mutex<Vec<[f32; 2]>>>);

impl InputRanges {
    /// One pair per channel, smallest first; empty before the first input.
    pub fn get(&self) -> Vec<[f32; 2]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records every row of `x`, `[…, channels]`, including padding.
    pub(crate) fn observe<const D: usize>(&self, x: &Tensor<D>) {
        let channels = x.dims()[D - 1];
        let values = x.clone().into_data().convert::<f32>();
        let values = values.as_slice::<f32>().expect("it was converted to f32");
        let mut ranges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ranges.resize(channels, [f32::INFINITY, f32::NEG_INFINITY]);
        for row in values.chunks_exact(channels.max(1)) {
            for ([low, high], value) in ranges.iter_mut().zip(row) {
                (*low, *high) = (low.min(*value), high.max(*value));
            }
        }
    }
}
