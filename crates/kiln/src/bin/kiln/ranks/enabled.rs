use anyhow::Context;
use kiln::environment::{mpi_timeout, started_together};
use kiln_mpi::Mpi;
use kiln_train::{Alone, Reduction};

use crate::console;

use super::SILENT;

/// This process among the others; none where it was started by itself.
pub struct Ranks(Option<Mpi>);

impl Ranks {
    /// Joins the processes that were started together. All but the first are silent from here on.
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

    /// Waits for the others and takes leave of MPI. A process that fails ends without: the launcher then ends the others.
    pub fn leave(self) {
        if let Some(mpi) = self.0 {
            mpi.finish();
        }
    }
}
