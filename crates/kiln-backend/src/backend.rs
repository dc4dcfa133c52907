use burn::tensor::Device;

/// A compute backend, as a type.
pub trait Backend: 'static {
    /// Its name on the command line, in reports, and of its feature.
    const NAME: &'static str;

    /// The device of that index; a CPU backend has one, whatever the index.
    fn device(index: usize) -> Device;
}

/// burn's pure-Rust CPU backend; the default.
#[derive(Debug)]
pub enum Flex {}

/// burn's older CPU backend, on the ndarray crate. burn 0.23 drops it.
#[derive(Debug)]
pub enum NdArray {}

/// An NVIDIA card.
#[derive(Debug)]
pub enum Cuda {}

/// A graphics card through wgpu.
#[derive(Debug)]
pub enum Wgpu {}

#[cfg(feature = "flex")]
impl Backend for Flex {
    const NAME: &'static str = "flex";

    fn device(_index: usize) -> Device {
        Device::flex()
    }
}

#[cfg(feature = "ndarray")]
impl Backend for NdArray {
    const NAME: &'static str = "ndarray";

    #[allow(deprecated, reason = "the backend is deprecated in burn 0.22 and asked for by those who compare")]
    fn device(_index: usize) -> Device {
        Device::ndarray()
    }
}

#[cfg(feature = "cuda")]
impl Backend for Cuda {
    const NAME: &'static str = "cuda";

    fn device(index: usize) -> Device {
        Device::cuda(index)
    }
}

#[cfg(feature = "wgpu")]
impl Backend for Wgpu {
    const NAME: &'static str = "wgpu";

    fn device(index: usize) -> Device {
        Device::wgpu(burn::tensor::DeviceKind::DiscreteGpu(index))
    }
}
