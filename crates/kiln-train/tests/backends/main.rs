//! What every backend must compute, on those that are compiled in: flex, and in `cargo xtask ci backends` also
//! ndarray and wgpu.

#[path = "../../../../tests/all/assets.rs"]
mod assets;
#[path = "../../../../tests/all/tiny.rs"]
mod tiny;

/// Whether the backend rounds the operands of f32 products to TF32, as CubeCL does on NVIDIA cards: 10 bits after the point.
fn has_tf32(backend: &str) -> bool {
    backend == "cuda"
}

mod agreement;
mod forward_parity;
