//! One product with every instruction set of this machine: `cargo run --release -p kiln-kernels --example paths`
#![expect(clippy::print_stdout, reason = "an example prints")]

use half::bf16;
use kiln_kernels::slices::{Epilogue, Kernels, Packed, Simd, Source, Target, View, product};

const ROWS: usize = 128;
const INNER: usize = 384;
const COLUMNS: usize = 1536;

/// Multiplies `[ROWS, INNER]` with `[INNER, COLUMNS]`, which gives `[ROWS, COLUMNS]`.
fn multiply<E: Kernels>(simd: Simd, a: &[f32], b: &[f32]) -> Vec<f32>
where
    f32: Source<E>,
{
    let packed = Packed::<E>::new(simd, View::new(b, INNER, COLUMNS, COLUMNS));
    let mut out = vec![0.0; ROWS * COLUMNS];
    product(simd, View::new(a, ROWS, INNER, INNER), &packed, Target::whole(&mut out, COLUMNS), Epilogue::Store);
    out
}

fn furthest(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn main() {
    let wave = |len: usize, step: f32| -> Vec<f32> { (0..len).map(|i| (i as f32 * step).sin()).collect() };
    let (a, b) = (wave(ROWS * INNER, 0.37), wave(INNER * COLUMNS, 0.73));
    let expected = multiply::<f32>(Simd::PORTABLE, &a, &b);
    for &simd in Simd::available() {
        let products = [multiply::<f32>(simd, &a, &b), multiply::<bf16>(simd, &a, &b), multiply::<i8>(simd, &a, &b)];
        let [in_f32, in_bf16, in_i8] = products.map(|product| furthest(&product, &expected));
        println!("{simd:?}: f32 {in_f32:.1e}, bf16 {in_bf16:.1e}, int8 {in_i8:.1e} from the portable f32 product");
    }
}
