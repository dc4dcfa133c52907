//! Kernels for BERT. On the CPU backend the operations are fused, with their own backward passes, in f32 or with products
//! in bf16 or int8. On every other backend they are the same formulas in burn's operations.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use kiln_kernels::{ActivatedLinear, Activation, Affine, Products};
//!
//! let device = Device::flex();
//! let linear = Affine::new(Tensor::ones([3, 5], &device), Tensor::zeros([5], &device));
//! let layer = ActivatedLinear { linear, activation: Activation::Gelu };
//! let y = layer.forward(Tensor::<2>::ones([4, 3], &device), &Products::default());
//! assert_eq!(y.dims(), [4, 5]);
//! ```
#![deny(missing_docs)]

#[cfg(feature = "flex")]
mod cpu;
mod activation;
mod products;
mod stored;
mod dropout;
#[cfg(feature = "flex")]
mod flex;
mod low_rank;
mod weight;
mod embeddings;
mod linear;
mod gated_linear;
mod self_attention;
mod rotary;
mod rotary_attention;
mod layer_norm;
mod residual_norm;
mod position_wise;
mod adamw;

pub use activation::Activation;
pub use adamw::{AdamWStep, adamw, plain_adamw, sum_of_squares};
pub use dropout::DropoutSeeds;
pub use embeddings::Embeddings;
pub use gated_linear::GatedLinear;
pub use layer_norm::LayerNorm;
pub use linear::ActivatedLinear;
pub use low_rank::LowRank;
pub use position_wise::PositionWise;
pub use products::{PackedWeights, Precision, Products};
pub use residual_norm::OutputBlock;
pub use rotary::Rotary;
pub use rotary_attention::RotaryAttention;
pub use self_attention::{Queries, SelfAttention};
pub use stored::{InputRounding, StoredMatrix, StoredValues, quantize_rows};
#[cfg(feature = "flex")]
pub use stored::{StoredTable, TableRows};
pub use weight::{Affine, Storage, Weight};

/// Matrix products on slices, with any instruction set of this machine. For benchmarks.
#[cfg(feature = "flex")]
pub mod slices {
    pub use crate::cpu::{Element, Epilogue, Kernels, Packed, Simd, Source, Target, View, product, product_serial};
}

#[cfg(feature = "flex")]
use dropout::dropout;
#[cfg(feature = "flex")]
pub use dropout::is_fused;
use dropout::plain_dropout;
#[cfg(feature = "flex")]
pub use stored::table_scores;
