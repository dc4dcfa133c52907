//! Measures the speed of bert-base's products, of products whose operands stay in the cache, and of reading memory. Prints
//! a table for the report of `cargo xtask bench`. `KILN_BENCH_INSTRUCTIONS` works as in the worker of `kiln-train`.
#![expect(clippy::print_stdout, reason = "a benchmark speaks to its driver")]

use std::hint::black_box;
use std::time::Instant;

use half::bf16;
use kiln_kernels::slices::{Epilogue, Kernels, Packed, Simd, Source, Target, View, product, product_serial};
use rayon::prelude::*;

const ROUNDS: usize = 9;
const LAYERS: usize = 12;
/// The weights of a layer: inner size, columns, and their number.
const WEIGHTS: [(usize, usize, usize); 3] = [(768, 768, 4), (768, 3072, 1), (3072, 768, 1)];

fn main() {
    if let Ok(name) = std::env::var("KILN_BENCH_INSTRUCTIONS") {
        Simd::limit(Simd::named(&name).expect("the machine has the instructions"));
    }
    rayon::scope(|_| {
        let simd = Simd::detect();
        println!("| product | f32 | bf16 | int8 |\n|---|---|---|---|");
        row(
            "64 rows in the second cache, GFLOP/s",
            [in_cache::<f32>(simd), in_cache::<bf16>(simd), in_cache::<i8>(simd)],
        );
        for (inner, columns, _) in WEIGHTS {
            let name = format!("1,024 rows, {inner} to {columns}, GFLOP/s");
            let shape = [1024, inner, columns];
            row(&name, [of_batch::<f32>(simd, shape), of_batch::<bf16>(simd, shape), of_batch::<i8>(simd, shape)]);
        }
        row("20 rows, all weights, GB/s", [of_text::<f32>(simd), of_text::<bf16>(simd), of_text::<i8>(simd)]);
        println!("\nMemory gives {:.0} GB/s to {} threads that add it up.", memory(), rayon::current_num_threads());
    });
}

fn row(name: &str, numbers: [f64; 3]) {
    println!("| {name} | {:.0} | {:.0} | {:.0} |", numbers[0], numbers[1], numbers[2]);
}

/// The median of [`ROUNDS`] runs, in seconds.
fn timed(mut work: impl FnMut()) -> f64 {
    let mut seconds = [0.0; ROUNDS];
    for round in &mut seconds {
        let started = Instant::now();
        work();
        *round = started.elapsed().as_secs_f64();
    }
    seconds.sort_by(f64::total_cmp);
    seconds[ROUNDS / 2]
}

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|at| (at as f32 * 0.37).sin()).collect()
}

fn in_cache<E: Kernels>(simd: Simd) -> f64
where
    f32: Source<E>,
{
    const REPEATS: usize = 100;
    // The right operand is 384 KB.
    let [rows, inner, columns] = [64, 1024 / size_of::<E>(), 384];
    let (a, b) =
        (values(rows * inner), Packed::<E>::new(simd, View::new(&values(inner * columns), inner, columns, columns)));
    let threads = rayon::current_num_threads();
    let seconds = timed(|| {
        (0..threads).into_par_iter().for_each(|_| {
            let mut out = vec![0.0f32; rows * columns];
            for _ in 0..REPEATS {
                let a = View::new(black_box(&a[..]), rows, inner, inner);
                product_serial(simd, a, &b, Target::whole(&mut out, columns), Epilogue::Store);
            }
            black_box(out);
        });
    });
    2e-9 * (threads * REPEATS * rows * inner * columns) as f64 / seconds
}

fn of_batch<E: Kernels>(simd: Simd, [rows, inner, columns]: [usize; 3]) -> f64
where
    f32: Source<E>,
{
    let (a, b) =
        (values(rows * inner), Packed::<E>::new(simd, View::new(&values(inner * columns), inner, columns, columns)));
    let mut out = vec![0.0f32; rows * columns];
    let mut multiply =
        || product(simd, View::new(&a, rows, inner, inner), &b, Target::whole(&mut out, columns), Epilogue::Store);
    2e-9 * (rows * inner * columns) as f64 / timed(&mut multiply)
}

/// Multiplies with each weight once, as for one short text.
fn of_text<E: Kernels>(simd: Simd) -> f64
where
    f32: Source<E>,
{
    const ROWS: usize = 20;
    let packed = |(inner, columns, _): (usize, usize, usize)| {
        (inner, columns, Packed::<E>::new(simd, View::new(&values(inner * columns), inner, columns, columns)))
    };
    let weights = WEIGHTS.iter().flat_map(|&weight| std::iter::repeat_n(weight, weight.2));
    let model: Vec<_> = (0..LAYERS).flat_map(|_| weights.clone().map(packed)).collect();
    let (a, mut out) = (values(ROWS * 3072), vec![0.0f32; ROWS * 3072]);
    let seconds = timed(|| {
        for (inner, columns, b) in &model {
            let a = View::new(&a[..ROWS * inner], ROWS, *inner, *inner);
            product(simd, a, b, Target::whole(&mut out[..ROWS * columns], *columns), Epilogue::Store);
        }
    });
    let bytes: usize = model.iter().map(|(inner, columns, _)| inner * columns * size_of::<E>()).sum();
    1e-9 * bytes as f64 / seconds
}

fn memory() -> f64 {
    let numbers = vec![1u64; 1 << 25];
    let seconds = timed(|| {
        black_box(numbers.par_chunks(1 << 20).map(|chunk| chunk.iter().sum::<u64>()).sum::<u64>());
    });
    8e-9 * numbers.len() as f64 / seconds
}
