use anyhow::Context;
use kiln::environment::{mpi_timeout, started_together};
use kiln_mpi::Mpi;
use kiln_train::{Alone, Reduction};

use crate::console;

use super::SILENT;

/// The connection to the other processes; `None` if this process was not started by a launcher.
pub struct Ranks(Option<Mpi>);

impl Ranks {
    /// Joins the processes that were started together. Disables the log of all but the first.
    pub fn join() -> anyhow::Result<Self> {
        if started_together().is_none() {
            return Ok(Self(None));
        }
        let mpi = Mpi::join(mpi_timeout(), |stalled| {
            let rank = SILENT.get().copied().unwrap_or_default();
            console::speak_as(Some(format!("rank {rank}: ")));
            console::log(format_args!("error: {stalled}; resume from the last checkpoint with --resume"));
            std::process::exit(1)
        });
        let mpi = mpi.context("MPI cannot be started")?;
        if mpi.rank() > 0 {
            SILENT.get_or_init(|| mpi.rank());
            console::speak_as(None);
        }
        Ok(Self(Some(mpi)))
    }

    pub fn reduction(&self) -> &dyn Reduction {
        self.0.as_ref().map_or(&Alone, |mpi| mpi as &dyn Reduction)
    }

    /// Waits for the other processes and finalizes MPI. A process that fails exits without this call, and the launcher then
    /// ends the others.
    pub fn leave(self) {
        if let Some(mpi) = self.0 {
            mpi.finish();
        }
    }
}
