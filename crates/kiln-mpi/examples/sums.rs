//! Checks every operation between the processes on small numbers: `mpirun -np 3 target/release/examples/sums`
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::time::Duration;

use kiln_mpi::Mpi;
use kiln_train::Reduction;

fn main() -> Result<(), String> {
    let mpi = Mpi::join(Duration::from_secs(60), |stalled| panic!("{stalled}")).ok_or("MPI cannot be started")?;
    let (rank, ranks) = (mpi.rank(), mpi.ranks());

    // Rank r sends the number 10 r + i to rank i, i + 1 times.
    let sent: Vec<usize> = (1..=ranks).collect();
    let values: Vec<f32> = (0..ranks).flat_map(|to| vec![(10 * rank + to) as f32; to + 1]).collect();
    let received = mpi.exchange(&values, &sent, &vec![rank + 1; ranks]);
    let expected: Vec<f32> = (0..ranks).flat_map(|from| vec![(10 * from + rank) as f32; rank + 1]).collect();
    assert_eq!(received, expected);

    // Rank r sends r letters.
    let mut all = vec![0; ranks * (ranks - 1) / 2];
    mpi.gather(&vec![b'a' + rank as u8; rank], &(0..ranks).collect::<Vec<_>>(), &mut all);
    let expected: Vec<u8> = (0..ranks).flat_map(|from| vec![b'a' + from as u8; from]).collect();
    assert_eq!(all, expected);

    let mut numbers = [rank as f32, 1.0];
    mpi.add(&mut numbers);
    assert_eq!(numbers, [(ranks * (ranks - 1) / 2) as f32, ranks as f32]);

    mpi.meet();
    if rank == 0 {
        println!("{ranks} processes, {} bytes sent by the first", mpi.bytes_sent());
    }
    mpi.finish();
    Ok(())
}
