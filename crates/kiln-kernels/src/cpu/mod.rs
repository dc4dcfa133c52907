//! The kernels, which work on slices and do not depend on tensors.

pub(crate) mod simd;
mod element;
mod view;
mod arithmetic;
mod vector;
mod tile;
#[cfg(target_arch = "x86_64")]
mod amx;
mod lanes;
mod pack;
mod product;
mod random;
mod norm;
mod softmax;
mod attention;
mod position_wise;
mod rotary;
mod embedding;
mod activation;
mod gate;
mod adamw;

pub use activation::{activate, activate_backward};
pub use adamw::{AdamWState, adamw, sum_of_squares};
pub use attention::{Attention, attention, attention_backward};
pub use element::{Element, Slot};
pub use embedding::{Tables, Tokens, embed, table_gradient};
pub use gate::{Gate, gate, gate_backward};
pub use lanes::Lanes;
pub use norm::{
    Keep, Norm, NormGradients, NormRows, Normalized, add, column_sums, drop_and_sum, is_invertible, norm_backward,
    normalize, residual_norm, residual_sum,
};
pub use pack::{Packed, Source, round, round_all};
pub use position_wise::{PositionWise, Stage, is_many};
pub use product::{Epilogue, Target, new_product, product, product_serial};
pub use random::Dropout;
pub use rotary::{Angles, Division, divide, unite};
pub use simd::Simd;
pub use softmax::SoftmaxRow;
pub use tile::Kernels;
pub use view::View;
