//! What every backend must compute, on those that are compiled in: flex, and in `cargo xtask ci backends` also
//! ndarray and wgpu.

#[path = "../../../../tests/all/assets.rs"]
mod assets;
#[path = "../../../../tests/all/tiny.rs"]
mod tiny;

mod agreement;
mod forward_parity;
