//! What every backend must compute, on those that are compiled in: within the workspace also ndarray, and in
//! `cargo xtask ci gpu` also wgpu.

#[path = "../../../../tests/all/assets.rs"]
mod assets;
#[path = "../../../../tests/all/tiny.rs"]
mod tiny;

mod agreement;
mod forward_parity;
