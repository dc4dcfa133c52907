use half::bf16;

use super::*;

/// Values in [-1, 1) that bf16 holds exactly.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let hashed = |at: u32| (at.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13).wrapping_mul(40503) >> 7;
    (0..count as u32).map(|at| (hashed(at) % 256) as f32 / 128.0 - 1.0).collect()
}

/// A view of a `rows × cols` matrix with padding between its rows, transposed in memory or not.
fn view(data: &[f32], rows: usize, cols: usize, transposed: bool) -> View<'_, f32> {
    if transposed { View::new(data, cols, rows, rows + 3).transposed() } else { View::new(data, rows, cols, cols + 3) }
}

/// Quantized rows and columns are off by at most half a unit, and values are at most 1.
#[test]
fn quantized_products_of_every_remainder_on_every_path() {
    for m in [1, 2, 5, 8, 67] {
        for (n, k) in [(1, 1), (2, 7), (16, 2), (17, 33), (48, 64), (97, 31), (50, 1030)] {
            for b_transposed in [false, true] {
                let mut paths = Simd::available().iter().map(|&simd| {
                    check::<i8>(simd, [m, n, k], [false, b_transposed], 1.5 / 127.0);
                    let a = values(m * k, 1);
                    let b = values((n + 3) * (k + 3), 2);
                    let packed = Packed::<i8>::new(simd, view(&b, k, n, b_transposed));
                    let mut out = vec![0f32; m * n];
                    product(simd, View::new(&a, m, k, k), &packed, Target::whole(&mut out, n), Epilogue::Store);
                    out
                });
                let portable = paths.next().expect("the portable level is always there");
                assert!(paths.all(|path| path == portable), "sums of whole numbers are exact");
            }
        }
    }
}

#[test]
fn zero_is_exact_and_rows_have_their_own_units() {
    let simd = Simd::detect();
    let a = [0.0, 0.0, 0.0, 1000.0, -1000.0, 0.0, 0.001, 0.0, -0.0005];
    let packed = Packed::<i8>::new(simd, View::new(&[1.0, 0.0, 1.0, 0.0, 1.0, 0.0], 3, 2, 2));
    let mut out = [7f32; 6];
    product(simd, View::new(&a, 3, 3, 3), &packed, Target::whole(&mut out, 2), Epilogue::Store);
    assert_eq!([out[0], out[1], out[3], out[5]], [0.0; 4]);
    // Half a unit, 2000/255 and 0.0015/255, for each of the two values.
    assert!(out[2].abs() < 7.9 && (out[4] - 0.0005).abs() < 6e-6, "{out:?}");
}

fn check<E: Kernels>(simd: Simd, [m, n, k]: [usize; 3], [a_transposed, b_transposed]: [bool; 2], tolerance: f64) {
    let (a, b) = (values((m + 3) * (k + 3), 1), values((n + 3) * (k + 3), 2));
    let at = |data: &[f32], row: usize, col: usize, rows: usize, cols: usize, transposed: bool| {
        f64::from(if transposed { data[col * (rows + 3) + row] } else { data[row * (cols + 3) + col] })
    };
    let (bias, mut parallel, mut serial) = (values(n, 3), vec![0f32; m * n], vec![1f32; m * (n + 2)]);
    let packed = Packed::<E>::new(simd, view(&b, k, n, b_transposed));
    let a_view = view(&a, m, k, a_transposed);
    product(simd, a_view, &packed, Target::whole(&mut parallel, n), Epilogue::Bias(&bias));
    let view = view(&b, k, n, b_transposed);
    let packed = if E::QUANTIZED { Packed::<E>::new(simd, view) } else { Packed::new_serial(simd, view) };
    product_serial(simd, a_view, &packed, Target::columns(&mut serial, n + 2, 1), Epilogue::Accumulate);
    for row in 0..m {
        for col in 0..n {
            let sum =
                (0..k).map(|i| at(&a, row, i, m, k, a_transposed) * at(&b, i, col, k, n, b_transposed)).sum::<f64>();
            let (found, expected) = (f64::from(parallel[row * n + col]), sum + f64::from(bias[col]));
            let what = format!("{simd:?} {m}×{n}×{k} {a_transposed} {b_transposed} at {row}, {col}");
            assert!((found - expected).abs() <= tolerance * k as f64, "{what}: {found}, not {expected}");
            let found = f64::from(serial[row * (n + 2) + 1 + col]);
            assert!((found - 1.0 - sum).abs() <= tolerance * k as f64, "{what}, serial: {found}, not {}", sum + 1.0);
        }
    }
}

#[test]
fn products_of_every_remainder_on_every_path() {
    for &simd in Simd::available() {
        for m in [1, 2, 5, 8, 13, 64, 67, 130] {
            for (n, k) in [(1, 1), (2, 7), (16, 2), (17, 33), (48, 64), (63, 5), (97, 31), (50, 1030)] {
                for transposed in [[false, false], [true, false], [false, true], [true, true]] {
                    check::<f32>(simd, [m, n, k], transposed, 1e-7);
                    check::<bf16>(simd, [m, n, k], transposed, 1e-7);
                }
            }
        }
    }
}

fn check_alone<E: Kernels>(simd: Simd, [n, k]: [usize; 2]) {
    const ROWS: usize = 131;
    let (a, b, bias) = (values(ROWS * k, 1), values(n * k, 2), values(n, 3));
    let packed = Packed::<E>::new(simd, View::new(&b, k, n, n));
    let rows = |first: usize, count: usize| {
        let mut out = vec![0f32; count * n];
        let a = View::new(&a[first * k..], count, k, k);
        product(simd, a, &packed, Target::whole(&mut out, n), Epilogue::Bias(&bias));
        out.iter().map(|value| value.to_bits()).collect::<Vec<u32>>()
    };
    let all = rows(0, ROWS);
    for (first, count) in [(0, 1), (130, 1), (64, 1), (3, 2), (60, 7), (1, 64), (2, 65), (30, 101)] {
        assert_eq!(rows(first, count), all[first * n..][..count * n], "{simd:?} {n}×{k}: {count} from {first}");
    }
}

/// Bit-identical: a row's sums do not depend on the other rows.
#[test]
fn rows_are_the_same_alone_and_in_any_batch() {
    for &simd in Simd::available() {
        for shape in [[1, 1], [17, 33], [63, 5], [97, 1030], [50, 64]] {
            check_alone::<f32>(simd, shape);
            check_alone::<bf16>(simd, shape);
            check_alone::<i8>(simd, shape);
        }
    }
}

#[test]
fn nothing_in_nothing_out() {
    for &simd in Simd::available() {
        for dims in [[0, 5, 4], [3, 0, 4]] {
            check::<f32>(simd, dims, [false, false], 0.0);
            check::<bf16>(simd, dims, [false, false], 0.0);
        }
        let packed = Packed::<f32>::new(simd, View::<f32>::new(&[], 0, 4, 4));
        let mut out = [7.0; 8];
        product(simd, View::<f32>::new(&[], 2, 0, 0), &packed, Target::whole(&mut out, 4), Epilogue::Store);
        assert_eq!(out, [0.0; 8], "an empty sum is zero");
    }
}
