use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use burn::tensor::{Distribution, Tensor};

use crate::Products;

/// A stream of seeds, one for each dropout of a pass, in the order in which they are computed. A second pass with a stream
/// of the same seed drops the same values, independent of the device's random stream.
///
/// Clones share their position in the stream.
#[derive(Clone, Debug)]
pub struct DropoutSeeds {
    seed: u64,
    drawn: Arc<AtomicU64>,
}

impl DropoutSeeds {
    /// Creates the stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, drawn: Arc::default() }
    }

    /// Draws the next seed with SplitMix64 (Steele et al., 2014).
    fn draw(&self) -> u64 {
        let drawn = self.drawn.fetch_add(1, Ordering::Relaxed) + 1;
        let mut z = self.seed.wrapping_add(drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Dropout with burn's operations. It is active under autodiff, or when `products` has seeds for it.
pub(crate) fn plain_dropout<const D: usize>(x: Tensor<D>, probability: f64, products: &Products) -> Tensor<D> {
    if probability == 0.0 || !(products.dropout_seeds.is_some() || x.is_autodiff()) {
        return x;
    }
    /// A device has one random stream for all threads. The lock covers setting the seed and drawing from it.
    static STREAM: Mutex<()> = Mutex::new(());
    let keep = 1.0 - probability;
    let kept = {
        let _stream = STREAM.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seeds) = &products.dropout_seeds {
            x.device().seed(seeds.draw());
        }
        x.random_like(Distribution::Bernoulli(keep))
    };
    x * kept / keep
}

/// The dropout of one fused operation, active like [`plain_dropout`]. Its seed comes from `products`, or from the device's
/// random stream.
#[cfg(feature = "flex")]
pub(crate) fn dropout<const D: usize>(
    x: &Tensor<D>,
    probability: f64,
    products: &Products,
) -> Option<crate::cpu::Dropout> {
    if probability == 0.0 || !(products.dropout_seeds.is_some() || x.is_autodiff()) {
        return None;
    }
    let seed = products.dropout_seeds.as_ref().map_or_else(|| device_seed(x), DropoutSeeds::draw);
    crate::cpu::Dropout::new(probability, seed)
}

#[cfg(feature = "flex")]
fn device_seed<const D: usize>(x: &Tensor<D>) -> u64 {
    let parts = Tensor::<1>::random([3], Distribution::Uniform(0.0, 1.0), &x.device().inner()).into_data();
    let parts = parts.try_into_vec::<f32>().expect("random numbers are f32");
    parts.iter().fold(0u64, |seed, part| seed << 21 ^ u64::from(part.to_bits()))
}

/// Whether the fused operations run on this device.
#[cfg(feature = "flex")]
pub fn is_fused(device: &burn::tensor::Device) -> bool {
    use burn::backend::DispatchDevice;

    matches!(device.clone().inner().as_dispatch(), DispatchDevice::Flex(_))
}
