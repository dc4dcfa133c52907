use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kiln_train::Reduction;
use mpi::collective::SystemOperation;
use mpi::datatype::{Partition, PartitionMut};
use mpi::environment::Universe;
use mpi::traits::{Communicator, CommunicatorCollectives};
use mpi::{Count, Threading};

use crate::Stalled;
use crate::watch::Watch;

/// The processes that MPI started.
///
/// MPI ends all of them when a call fails in one of them. The launcher ends all of them when one fails or is killed before
/// [`Mpi::finish`]. Dropping this value does not finish MPI.
pub struct Mpi {
    /// Waits for all processes and finalizes MPI when it is dropped.
    universe: ManuallyDrop<Universe>,
    rank: usize,
    ranks: usize,
    sent: AtomicU64,
    watch: Watch,
    timeout: Duration,
}

/// The number of timeouts for which one process may work alone: the first validates and writes checkpoints, while the others
/// wait.
const ALONE: u32 = 12;

impl Mpi {
    /// Starts MPI in this process. None if it was started before, or does not support threads.
    ///
    /// `on_stall` is called from a separate thread when this process has waited for the others longer than `timeout`. It has
    /// to end the process, because MPI calls cannot be cancelled.
    pub fn join(timeout: Duration, on_stall: impl Fn(Stalled) + Send + 'static) -> Option<Self> {
        let (universe, threading) = mpi::initialize_with_threading(Threading::Funneled)?;
        if threading == Threading::Single {
            return None;
        }
        let world = universe.world();
        Some(Self {
            rank: world.rank() as usize,
            ranks: world.size() as usize,
            universe: ManuallyDrop::new(universe),
            sent: AtomicU64::new(0),
            watch: Watch::start(on_stall),
            timeout,
        })
    }

    /// Waits until all processes call this, and finalizes MPI.
    pub fn finish(self) {
        drop(ManuallyDrop::into_inner(self.universe));
    }

    fn count_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl fmt::Debug for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mpi").field("rank", &self.rank).field("ranks", &self.ranks).finish_non_exhaustive()
    }
}

impl Reduction for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.ranks
    }

    fn meet(&self) {
        self.watch.during("at a barrier", self.timeout * ALONE, || self.universe.world().barrier());
    }

    fn exchange(&self, values: &[f32], sent: &[usize], received: &[usize]) -> Vec<f32> {
        let mut all = vec![0.0; received.iter().sum()];
        self.count_sent((values.len() - sent[self.rank]) * size_of::<f32>());
        self.watch.during("in an exchange of gradients", self.timeout, || {
            let (counts, starts) = parts(sent);
            let values = Partition::new(values, counts, starts);
            let (counts, starts) = parts(received);
            let mut all = PartitionMut::new(&mut all[..], counts, starts);
            self.universe.world().all_to_all_varcount_into(&values, &mut all);
        });
        all
    }

    fn gather(&self, mine: &[u8], counts: &[usize], all: &mut [u8]) {
        // MPI rejects empty buffers. All processes return here, because `all` has the same length in each.
        if all.is_empty() {
            return;
        }
        self.count_sent(mine.len() * (self.ranks - 1));
        self.watch.during("in an all-gather", self.timeout, || {
            let (counts, starts) = parts(counts);
            let mut all = PartitionMut::new(all, counts, starts);
            self.universe.world().all_gather_varcount_into(mine, &mut all);
        });
    }

    /// The MPI library chooses the algorithm. The numbers are counted as sent once.
    fn add(&self, values: &mut [f32]) {
        let mine = values.to_vec();
        self.count_sent(size_of_val(values));
        self.watch.during("in a sum of gradients", self.timeout, || {
            self.universe.world().all_reduce_into(&mine[..], values, SystemOperation::sum());
        });
    }

    fn bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// The counts in MPI's type, and the start of each part.
fn parts(counts: &[usize]) -> (Vec<Count>, Vec<Count>) {
    let count = |count: usize| Count::try_from(count).expect("a message has fewer than 2³¹ numbers");
    let mut start = 0;
    let starts = counts.iter().map(|&length| {
        start += length;
        count(start - length)
    });
    let starts = starts.collect();
    (counts.iter().copied().map(count).collect(), starts)
}
