//! The processes that `mpirun` started together: only the first one writes output.

#[cfg(feature = "mpi")]
mod enabled;
#[cfg(not(feature = "mpi"))]
mod disabled;

#[cfg(not(feature = "mpi"))]
pub use disabled::Ranks;
#[cfg(feature = "mpi")]
pub use enabled::Ranks;

use std::sync::OnceLock;
use std::time::Duration;

use crate::console;

/// The rank of this process, unless it is the first.
static SILENT: OnceLock<usize> = OnceLock::new();

/// How long a process other than the first waits before it reports an error. Most errors occur in all processes. By then,
/// the first one has reported the error and ended, and the launcher has ended the others.
const PATIENCE: Duration = Duration::from_secs(2);

/// Enables the log for an error of this process, after a wait if it is not the first process.
pub fn before_an_error() {
    if let Some(rank) = SILENT.get() {
        std::thread::sleep(PATIENCE);
        console::speak_as(Some(format!("rank {rank}: ")));
    }
}
