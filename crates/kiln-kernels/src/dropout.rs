use burn::tensor::{Distribution, Tensor};

/// Dropout by burn's operations, under autodiff or where it is active anyway.
pub(crate) fn plain_dropout<const D: usize>(x: Tensor<D>, probability: f64, drops: bool) -> Tensor<D> {
    if probability == 0.0 || !(drops || x.is_autodiff()) {
        return x;
    }
    let keep = 1.0 - probability;
    let kept = x.random_like(Distribution::Bernoulli(keep));
    x * kept / keep
}

/// The dropout of one fused operation: as [`plain_dropout`], with a seed drawn from the device's own random stream.
#[cfg(feature = "flex")]
pub(crate) fn dropout<const D: usize>(x: &Tensor<D>, probability: f64, drops: bool) -> Option<crate::cpu::Dropout> {
    if probability == 0.0 || !(drops || x.is_autodiff()) {
        return None;
    }
    let parts = Tensor::<1>::random([3], Distribution::Uniform(0.0, 1.0), &x.device().inner()).into_data();
    let parts = parts.try_into_vec::<f32>().expect("random numbers are f32");
    let seed = parts.iter().fold(0u64, |seed, part| seed << 21 ^ u64::from(part.to_bits()));
    crate::cpu::Dropout::new(probability, seed)
}

/// Whether the fused operations run on this device.
#[cfg(feature = "flex")]
pub(crate) fn is_fused(device: &burn::tensor::Device) -> bool {
    use burn::backend::DispatchDevice;

    matches!(device.clone().inner().as_dispatch(), DispatchDevice::Flex(_))
}
