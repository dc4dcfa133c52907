//! What every backend must compute, on those that are compiled in. `cargo xtask ci gpu` runs it with wgpu; this package does
//! without the crates that read data sets, which that build would wait for. Within the workspace, ndarray is compiled in.

#[path = "../../../../tests/all/assets.rs"]
mod assets;
#[path = "../../../../tests/all/tiny.rs"]
mod tiny;

mod agreement;
mod forward_parity;
