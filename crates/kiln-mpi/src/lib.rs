//! Data-parallel training by several processes over MPI, on one machine or many. `Mpi` implements `kiln_train`'s
//! `Reduction`, the communication between the processes, and reports when one of them stalls.
//!
//! The crate is empty without its feature `engine`, which needs an MPI library (Open MPI or MPICH) and libclang to build.
//!
//! ```text
//! mpirun -np 4 kiln train --recipe recipe.toml --out runs/shared
//! ```
//!
//! See `examples/sums.rs`.
#![deny(missing_docs)]

#[cfg(feature = "engine")]
mod processes;
#[cfg(feature = "engine")]
mod watch;

#[cfg(feature = "engine")]
pub use processes::Mpi;
#[cfg(feature = "engine")]
pub use watch::Stalled;
