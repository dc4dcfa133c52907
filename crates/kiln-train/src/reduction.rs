use std::fmt::Debug;

/// Communication between processes that train one model together, each with a copy of it. Processes are numbered by rank.
/// [`Alone`] is for a single process; `kiln-mpi` implements this trait for processes started by MPI.
///
/// All processes call the same methods in the same order with matching counts. A call returns after the others have made
/// theirs. There are no errors: if one process is lost, the launcher has to end the others.
pub trait Reduction: Debug + Sync {
    /// The rank of this process, from 0.
    fn rank(&self) -> usize;

    /// The number of processes.
    fn ranks(&self) -> usize;

    /// Waits until every process has made this call. Before it, one process may have worked alone for a long time.
    fn meet(&self);

    /// Sends `sent[rank]` of `values` to each rank, in the order of the ranks. Returns the numbers received from each rank,
    /// `received[rank]` of them, in the order of the ranks.
    fn exchange(&self, values: &[f32], sent: &[usize], received: &[usize]) -> Vec<f32>;

    /// Fills `all` with the bytes of all processes, `counts[rank]` of each, in the order of the ranks.
    fn gather(&self, mine: &[u8], counts: &[usize], all: &mut [u8]);

    /// Replaces each number by its sum over all processes. The order of the additions is not specified.
    fn add(&self, values: &mut [f32]);

    /// Number of bytes that this process has sent since its start.
    fn bytes_sent(&self) -> u64;
}

/// The [`Reduction`] of a single process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Reduction for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn ranks(&self) -> usize {
        1
    }

    fn meet(&self) {}

    fn exchange(&self, values: &[f32], _sent: &[usize], _received: &[usize]) -> Vec<f32> {
        values.to_vec()
    }

    fn gather(&self, mine: &[u8], _counts: &[usize], all: &mut [u8]) {
        all.copy_from_slice(mine);
    }

    fn add(&self, _values: &mut [f32]) {}

    fn bytes_sent(&self) -> u64 {
        0
    }
}
