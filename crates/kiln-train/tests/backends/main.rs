//! Tests of the computations that every backend must support, on the backends that are compiled in: flex and, with
//! `cargo xtask ci backends`, also ndarray and wgpu.

#[path = "../../../../tests/all/assets.rs"]
mod assets;
#[path = "../../../../tests/all/tiny.rs"]
mod tiny;

/// Whether the backend rounds the operands of f32 products to TF32 (10 mantissa bits), as CubeCL does on NVIDIA GPUs.
fn has_tf32(backend: &str) -> bool {
    backend == "cuda"
}

mod agreement;
mod forward_parity;
