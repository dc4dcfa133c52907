use std::fmt::Debug;

/// The processes that train one model together, each with a copy of it, and how they speak. They are numbered by their
/// ranks. [`Alone`] is the only process; `kiln-mpi` has those that MPI starts.
///
/// All processes call the same methods in the same order with counts that agree, and a call returns once the others have
/// made theirs. There are no errors: where one process is lost, whoever started them has to end the others.
pub trait Reduction: Debug + Sync {
    /// Which of the processes this one is, from 0.
    fn rank(&self) -> usize;

    /// How many processes there are.
    fn ranks(&self) -> usize;

    /// Waits until every process is here. In between, one of them may have worked alone for long.
    fn meet(&self);

    /// Sends `values`, one part after another, of which `sent[rank]` numbers go to each rank. Returns what has come, by
    /// rank, `received[rank]` numbers from each.
    fn exchange(&self, values: &[f32], sent: &[usize], received: &[usize]) -> Vec<f32>;

    /// Fills `all` with the bytes of all processes, by rank, `counts[rank]` of each.
    fn gather(&self, mine: &[u8], counts: &[usize], all: &mut [u8]);

    /// Replaces each number by its sum over all processes, which are added in whatever order is fast.
    fn add(&self, values: &mut [f32]);

    /// Bytes that this process has sent since it began.
    fn bytes_sent(&self) -> u64;
}

/// The only process.
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
