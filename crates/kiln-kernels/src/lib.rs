//! BERT's operations. On the CPU backend they are fused, with backward passes of their own, in f32 or with products in
//! bf16; on every other backend they are the same formulas in burn's operations.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use kiln_kernels::{Products, linear_gelu};
//!
//! let device = Device::flex();
//! let (x, weight) = (Tensor::<2>::ones([4, 3], &device), Tensor::<2>::ones([3, 5], &device));
//! let y = linear_gelu(x, weight, Tensor::<1>::zeros([5], &device), &Products::default());
//! assert_eq!(y.dims(), [4, 5]);
//! ```
#![deny(missing_docs)]

pub mod cpu;
mod products;
mod dropout;
#[cfg(feature = "flex")]
mod flex;
mod embeddings;
mod linear;
mod self_attention;
mod residual_norm;
mod adamw;

pub use adamw::{adamw, plain_adamw, sum_of_squares};
pub use cpu::AdamWStep;
pub use embeddings::Embeddings;
pub use linear::{linear_gelu, plain_linear_gelu};
pub use products::{PackedWeights, Precision, Products};
pub use residual_norm::OutputBlock;
pub use self_attention::{Queries, SelfAttention};

use dropout::plain_dropout;
#[cfg(feature = "flex")]
use dropout::{dropout, is_fused};
