use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Tensor;

/// The largest magnitude of each channel of everything that a linear layer reads. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct InputMaxima(Arc<Mutex<Vec<f32>>>);

impl InputMaxima {
    /// One for each channel; none before anything was read.
    pub fn get(&self) -> Vec<f32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every row of `x`, `[…, channels]`, padding included.
    pub(crate) fn observe<const D: usize>(&self, x: &Tensor<D>) {
        let channels = x.dims()[D - 1];
        let values = x.clone().into_data().convert::<f32>();
        let values = values.as_slice::<f32>().expect("it was converted to f32");
        let mut maxima = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        maxima.resize(channels, 0.0);
        for row in values.chunks_exact(channels.max(1)) {
            maxima.iter_mut().zip(row).for_each(|(largest, value)| *largest = largest.max(value.abs()));
        }
    }
}
