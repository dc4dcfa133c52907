use std::fmt;

use burn::tensor::Device;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
use burn::tensor::DeviceType;

/// A compute backend, as a type.
pub trait Backend: 'static {
    /// Its name on the command line and in reports, and the name of its feature.
    const NAME: &'static str;

    /// Whether it computes in main memory, not in GPU memory.
    const IN_MAIN_MEMORY: bool;

    /// Whether it supports matrix products in bf16.
    const HAS_BF16: bool;

    /// The number of devices of this machine that it can use. A CPU backend has one.
    fn device_count() -> usize;

    /// The device with this index. Does not check that the machine has it: computing on an absent device panics.
    fn device(index: usize) -> Device;

    /// The device with this index, if the machine has it.
    ///
    /// # Errors
    /// [`NoDevice`] when the machine does not have it.
    fn find_device(index: usize) -> Result<Device, NoDevice> {
        let count = Self::device_count();
        if index < count { Ok(Self::device(index)) } else { Err(NoDevice { backend: Self::NAME, index, count }) }
    }
}

/// The requested device does not exist on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoDevice {
    /// The backend's name.
    pub backend: &'static str,
    /// The requested index.
    pub index: usize,
    /// The number of devices.
    pub count: usize,
}

impl fmt::Display for NoDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backend, index, count } = self;
        match count {
            0 => write!(f, "backend `{backend}` finds no device on this machine"),
            1 => write!(f, "backend `{backend}` has no device {index}; its only device is 0"),
            _ => write!(f, "backend `{backend}` has no device {index}; its devices are 0 to {}", count - 1),
        }
    }
}

impl std::error::Error for NoDevice {}

/// burn's pure-Rust CPU backend; the default.
#[derive(Debug)]
pub enum Flex {}

/// burn's older CPU backend, based on the ndarray crate. burn 0.23 drops it.
#[derive(Debug)]
pub enum NdArray {}

/// An NVIDIA GPU.
#[derive(Debug)]
pub enum Cuda {}

/// A GPU of any kind (discrete, integrated or virtual), or a software renderer, through wgpu.
#[derive(Debug)]
pub enum Wgpu {}

#[cfg(feature = "flex")]
impl Backend for Flex {
    const NAME: &'static str = "flex";
    const IN_MAIN_MEMORY: bool = true;
    const HAS_BF16: bool = true;

    fn device_count() -> usize {
        1
    }

    fn device(_index: usize) -> Device {
        Device::flex()
    }
}

#[cfg(feature = "ndarray")]
impl Backend for NdArray {
    const NAME: &'static str = "ndarray";
    const IN_MAIN_MEMORY: bool = true;
    const HAS_BF16: bool = false;

    fn device_count() -> usize {
        1
    }

    #[allow(deprecated, reason = "the backend is deprecated in burn 0.22 and asked for by those who compare")]
    fn device(_index: usize) -> Device {
        Device::ndarray()
    }
}

#[cfg(feature = "cuda")]
impl Backend for Cuda {
    const NAME: &'static str = "cuda";
    const IN_MAIN_MEMORY: bool = false;
    const HAS_BF16: bool = true;

    fn device_count() -> usize {
        Device::enumerate(DeviceType::Cuda).len()
    }

    fn device(index: usize) -> Device {
        keep_kernels();
        Device::cuda(index)
    }
}

/// Caches the kernels that this process compiles and selects, so that the next process does not repeat the minutes of
/// work. The cache is in `target` when the program runs inside a workspace, otherwise in the user's cache folder. CubeCL's
/// other settings come from `cubecl.toml` and the environment.
#[cfg(feature = "cuda")]
fn keep_kernels() {
    use cubecl_runtime::config::{CubeClRuntimeConfig, RuntimeConfig};

    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
        config.compilation.cache = true;
        // If the program has already configured CubeCL, its configuration is kept.
        CubeClRuntimeConfig::try_set(config);
    });
}

#[cfg(feature = "wgpu")]
impl Backend for Wgpu {
    const NAME: &'static str = "wgpu";
    const IN_MAIN_MEMORY: bool = false;
    const HAS_BF16: bool = false;

    fn device_count() -> usize {
        Device::enumerate(DeviceType::Wgpu).len()
    }

    fn device(index: usize) -> Device {
        let devices = Device::enumerate(DeviceType::Wgpu);
        // If there is none, wgpu reports the missing adapter when the default device is used.
        devices.into_iter().nth(index).unwrap_or_else(|| Device::wgpu(burn::tensor::DeviceKind::DefaultDevice))
    }
}
