//! The compute backends as types. An entry point is generic over [`Backend`], and features select the backends that are
//! compiled in. Code below the entry point takes the `&Device` that the backend creates.
//!
//! ```
//! use kiln_backend::{Backend, Flex};
//!
//! let device = Flex::device(0);
//! let sum = burn::tensor::Tensor::<1>::ones([4], &device).sum();
//! assert_eq!((Flex::NAME, sum.into_scalar::<f32>()), ("flex", 4.0));
//! ```
//!
//! See `examples/backends.rs`.
#![deny(missing_docs)]

mod backend;
mod compiled;

pub use backend::{Backend, Cuda, Flex, NdArray, NoDevice, Wgpu};
pub use compiled::{Entry, UnknownBackend, compiled_in, run};
