use kiln::UsageError;
use kiln::environment::started_together;
use kiln_train::{Alone, Reduction};

/// A single process, for builds without MPI.
pub struct Ranks;

impl Ranks {
    /// Fails if several processes were started together, because each would train the whole model into the same folder.
    pub fn join() -> anyhow::Result<Self> {
        match started_together() {
            Some(ranks @ 2..) => Err(UsageError(format!(
                "{ranks} processes were started together, and this program was built without the feature `mpi`"
            ))
            .into()),
            _ => Ok(Self),
        }
    }

    pub fn reduction(&self) -> &dyn Reduction {
        &Alone
    }

    pub fn leave(self) {}
}
