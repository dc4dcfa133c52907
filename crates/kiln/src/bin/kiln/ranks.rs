//! This process among those that `mpirun` has started together: the first speaks, and the others are silent.

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

/// How long another process than the first keeps its error to itself. Most errors are those of all processes: then the
/// first one has ended by now, and the launcher has ended the others.
const PATIENCE: Duration = Duration::from_secs(2);

/// From here on an error or an end of this process alone is shown.
pub fn before_an_error() {
    if let Some(rank) = SILENT.get() {
        std::thread::sleep(PATIENCE);
        console::speak_as(Some(format!("rank {rank}: ")));
    }
}
