//! Packs stored weights without an f32 copy.

use std::any::{Any, TypeId};
use std::sync::Arc;

use half::bf16;

use super::{InputRounding, StoredMatrix, StoredValues, quantize_rows};
use crate::cpu::{Kernels, Packed, Simd, View};
use crate::weight::Operand;

/// Packs weights side by side as one right operand, without unpacking them. Returns `None` if one of them is not stored.
pub(crate) fn pack_stored<E: Kernels>(weights: &[&Operand]) -> Option<Arc<Packed<E>>> {
    let stored: Vec<StoredValues> = weights.iter().map(|weight| weight.stored()).collect::<Option<_>>()?;
    let matrices: Vec<StoredMatrix<'_>> = stored.iter().map(StoredValues::matrix).collect();
    let [input, output] = weights[0].shape();
    assert!(weights.iter().all(|weight| weight.shape() == [input, output]), "weights of one shape");
    assert!(matrices.iter().all(|matrix| matrix.len() == input * output), "matrices of that shape");
    let rows = output * matrices.len();
    let packed: Arc<dyn Any + Send + Sync> = match TypeId::of::<E>() {
        element if element == TypeId::of::<f32>() => Arc::new(pack_f32(&matrices, rows, input)),
        element if element == TypeId::of::<bf16>() => Arc::new(pack_bf16(&matrices, rows, input)),
        element if element == TypeId::of::<i8>() => Arc::new(pack_int8(&matrices, rows, input)),
        _ => return None,
    };
    packed.downcast().ok()
}

fn pack_f32(matrices: &[StoredMatrix<'_>], rows: usize, columns: usize) -> Packed<f32> {
    let pack = |values: &[f32]| Packed::new(Simd::detect(), View::new(values, rows, columns, columns).transposed());
    match matrices {
        [StoredMatrix::F32(values)] => pack(values),
        _ => pack(&matrices.iter().flat_map(|matrix| matrix.to_f32()).collect::<Vec<f32>>()),
    }
}

fn pack_bf16(matrices: &[StoredMatrix<'_>], rows: usize, columns: usize) -> Packed<bf16> {
    let pack = |values: &[bf16]| Packed::new(Simd::detect(), View::new(values, rows, columns, columns).transposed());
    let rounded = |matrix: &StoredMatrix<'_>| match matrix {
        StoredMatrix::Bf16(values) => values.to_vec(),
        matrix => matrix.to_f32().into_iter().map(bf16::from_f32).collect(),
    };
    match matrices {
        [StoredMatrix::Bf16(values)] => pack(values),
        _ => pack(&matrices.iter().flat_map(rounded).collect::<Vec<bf16>>()),
    }
}

fn pack_int8(matrices: &[StoredMatrix<'_>], rows: usize, columns: usize) -> Packed<i8> {
    let pack = |values: &[i8], units: &[f32], rounding: InputRounding| {
        let columns = View::new(values, rows, columns, columns).transposed();
        Packed::from_quantized(Simd::detect(), columns, units, rounding)
    };
    if let [StoredMatrix::Int8 { values, units, rounding }] = matrices {
        return pack(values, units, (*rounding).clone());
    }
    let rounding = common_rounding(matrices);
    let quantized = |matrix: &StoredMatrix<'_>| match matrix {
        StoredMatrix::Int8 { values, units, rounding: own } if **own == rounding => (values.to_vec(), units.to_vec()),
        matrix => quantize_rows(&matrix.to_f32(), columns),
    };
    let (values, units): (Vec<Vec<i8>>, Vec<Vec<f32>>) = matrices.iter().map(quantized).unzip();
    pack(&values.concat(), &units.concat(), rounding)
}

/// The rounding of all matrices, because one product has one left operand. The default if they differ.
fn common_rounding(matrices: &[StoredMatrix<'_>]) -> InputRounding {
    let mut all = matrices.iter().map(|matrix| match *matrix {
        StoredMatrix::Int8 { rounding, .. } => rounding.clone(),
        StoredMatrix::F32(_) | StoredMatrix::Bf16(_) => InputRounding::default(),
    });
    let first = all.next().unwrap_or_default();
    if all.all(|rounding| rounding == first) { first } else { InputRounding::default() }
}

#[cfg(test)]
pub(super) mod tests {
    use std::ops::Range;

    use burn::tensor::{Device, Tensor, TensorData};

    use super::*;
    use crate::{ActivatedLinear, Activation, Affine, PackedWeights, Precision, Products, Storage, Weight};

    pub fn values(count: usize, seed: u32) -> Vec<f32> {
        let hashed = |at: u32| (at.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13).wrapping_mul(40503) >> 7;
        (0..count as u32).map(|at| (hashed(at) % 4093) as f32 / 2047.0 - 1.0).collect()
    }

    fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
        (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
    }

    fn bytes<T: bytemuck::NoUninit>(values: &[T]) -> super::super::Bytes {
        /// Aligned to 8 bytes, as values in a mapped file are.
        struct Aligned(Vec<u64>, usize);
        impl AsRef<[u8]> for Aligned {
            fn as_ref(&self) -> &[u8] {
                &bytemuck::cast_slice(&self.0)[..self.1]
            }
        }
        let values: &[u8] = bytemuck::cast_slice(values);
        let mut aligned = vec![0u64; values.len().div_ceil(8)];
        bytemuck::cast_slice_mut::<u64, u8>(&mut aligned)[..values.len()].copy_from_slice(values);
        Arc::new(Aligned(aligned, values.len()))
    }

    fn int8(values: &[i8], units: Vec<f32>, rounding: InputRounding) -> StoredValues {
        StoredValues::Int8 { values: bytes(values), units: units.into(), rounding }
    }

    /// The values in every form that can be stored for each precision.
    pub fn forms(dense: &[f32], columns: usize) -> Vec<(Precision, StoredValues)> {
        let (whole, units) = quantize_rows(dense, columns);
        let rounded: Vec<bf16> = dense.iter().map(|value| bf16::from_f32(*value)).collect();
        let full = || StoredValues::F32(bytes(dense));
        vec![
            (Precision::F32, full()),
            (Precision::Bf16, full()),
            (Precision::Bf16, StoredValues::Bf16(bytes(&rounded))),
            (Precision::Int8, full()),
            (Precision::Int8, int8(&whole, units, InputRounding::default())),
        ]
    }

    #[derive(Debug)]
    struct Held([usize; 2], StoredValues);

    impl Storage for Held {
        fn shape(&self) -> [usize; 2] {
            self.0
        }

        fn unpack_block(&self, _: Range<usize>, _: Range<usize>, _: &mut [f32]) {
            panic!("it is packed as it is")
        }

        fn stored(&self) -> Option<StoredValues> {
            Some(self.1.clone())
        }
    }

    /// Bit-identical, for each precision and each form that holds the same numbers.
    #[test]
    fn stored_weights_are_computed_with_as_dense_ones_are() {
        let device = Device::flex();
        let [input, output] = [37, 50];
        let mut dense = values(output * input, 3);
        dense[5 * input..6 * input].fill(0.0);
        let x = Tensor::<2>::from_data(TensorData::new(values(11 * input, 8), [11, input]), &device);
        let bias = Tensor::<1>::from_data(TensorData::new(values(output, 5), [output]), &device);
        let forward = |weight: Weight, products: Products| {
            let linear = Affine { weight, bias: bias.clone() };
            let y = ActivatedLinear { linear, activation: Activation::Gelu }.forward(x.clone(), &products);
            y.into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32")
        };
        let in_rows = TensorData::new(transposed(&dense, output, input), [input, output]);
        let in_rows = Tensor::<2>::from_data(in_rows, &device);
        for (precision, form) in forms(&dense, input) {
            let products = || Products { precision, ..Products::default() };
            let expected = forward(in_rows.clone().into(), products());
            let stored = || Weight::stored(Arc::new(Held([input, output], form.clone())), &device);
            let kept = Products { packed: Some(PackedWeights::default()), ..products() };
            for products in [products(), kept] {
                assert_eq!(forward(stored(), products), expected, "{precision:?} {form:?}");
            }
        }
    }

    /// A matrix whose columns are multiplied with `factors`, stored with a smoothing of their reciprocals.
    fn smoothed(dense: &[f32], factors: &[f32]) -> StoredValues {
        let scaled: Vec<f32> = dense.iter().zip(factors.iter().cycle()).map(|(value, factor)| value * factor).collect();
        let (whole, units) = quantize_rows(&scaled, factors.len());
        let smoothing = factors.iter().map(|factor| 1.0 / factor).collect();
        int8(&whole, units, InputRounding { smoothing, range: None })
    }

    /// The root mean square of the differences.
    fn distance(a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len());
        (a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / a.len() as f32).sqrt()
    }

    /// Smoothing recovers the accuracy that a column of outliers costs the other columns of an activation row.
    #[test]
    fn smoothed_products_lose_less_to_outliers() {
        let device = Device::flex();
        let [input, output, rows] = [37, 50, 11];
        let dense = values(output * input, 3);
        let mut x = values(rows * input, 8);
        x.chunks_exact_mut(input).for_each(|row| row[5] *= 100.0);
        let mut factors = vec![1.0; input];
        factors[5] = 10.0;
        let x = Tensor::<2>::from_data(TensorData::new(x, [rows, input]), &device);
        let forward = |precision: Precision, stored: StoredValues| {
            let weight = Weight::stored(Arc::new(Held([input, output], stored)), &device);
            let layer = ActivatedLinear {
                linear: Affine { weight, bias: Tensor::zeros([output], &device) },
                activation: Activation::Identity,
            };
            let y = layer.forward(x.clone(), &Products { precision, ..Products::default() });
            y.into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32")
        };
        let exact = forward(Precision::F32, StoredValues::F32(bytes(&dense)));
        let (whole, units) = quantize_rows(&dense, input);
        let plain = distance(&forward(Precision::Int8, int8(&whole, units, InputRounding::default())), &exact);
        let stored = smoothed(&dense, &factors);
        assert!(distance(&stored.matrix().to_f32(), &dense) < 0.03, "it is still the same matrix");
        let less = distance(&forward(Precision::Int8, stored), &exact);
        assert!(less * 2.0 < plain, "{less}, {plain} without smoothing");
    }

    /// With the row's own range, the results are bit-identical to those of a dynamic scale. A wider range is coarser, and a
    /// narrower one clips.
    #[test]
    fn a_static_scale_is_a_range_for_all_rows() {
        let device = Device::flex();
        let [input, output] = [37, 50];
        let dense = values(output * input, 3);
        let (whole, units) = quantize_rows(&dense, input);
        let factors: Vec<f32> = (0..input).map(|at| 1.0 + at as f32 / 8.0).collect();
        let forward = |x: &[f32], rounding: InputRounding| {
            let stored = int8(&whole, units.clone(), rounding);
            let weight = Weight::stored(Arc::new(Held([input, output], stored)), &device);
            let layer = ActivatedLinear {
                linear: Affine { weight, bias: Tensor::zeros([output], &device) },
                activation: Activation::Identity,
            };
            let x = Tensor::<2>::from_data(TensorData::new(x.to_vec(), [x.len() / input, input]), &device);
            let y = layer.forward(x, &Products { precision: Precision::Int8, ..Products::default() });
            y.into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32")
        };
        // Rounded to bf16, as activations are.
        let x: Vec<f32> = values(input, 8).into_iter().map(|x| bf16::from_f32(x).to_f32()).collect();
        for smoothing in [vec![], factors] {
            let smoothing: Arc<[f32]> = smoothing.into();
            let factor = |at: usize| smoothing.get(at).copied().unwrap_or(1.0);
            let smoothed: Vec<f32> = x.iter().enumerate().map(|(at, x)| x * factor(at)).collect();
            let range = smoothed.iter().fold([0.0, 0.0], |[low, high]: [f32; 2], x| [low.min(*x), high.max(*x)]);
            let rounded = |x: &[f32], scale: Option<f32>| {
                let range = scale.map(|scale| range.map(|end| end * scale));
                forward(x, InputRounding { smoothing: smoothing.clone(), range })
            };
            let own = rounded(&x, None);
            assert_eq!(rounded(&x, Some(1.0)), own);
            assert!(distance(&rounded(&x, Some(50.0)), &own) > 0.02 * distance(&own, &vec![0.0; output]), "coarser");
            // A row's sums do not depend on the other rows, and it does not matter how far a value is outside the range.
            let beyond = |far: f32| x.iter().map(|x| far.copysign(*x)).collect::<Vec<f32>>();
            let rows = rounded(&[x.clone(), beyond(64.0), beyond(1e30)].concat(), Some(1.0));
            assert_eq!(rows[..output], own);
            assert_eq!(rows[output..2 * output], rows[2 * output..]);
        }
    }

    /// One left operand has one smoothing. If the matrices differ in smoothing, they are quantized again.
    #[test]
    fn matrices_side_by_side_have_a_smoothing_in_common_or_none() {
        let [columns, rows] = [7, 9];
        let (a, b) = (values(rows * columns, 1), values(rows * columns, 2));
        let factors = |first: f32| (0..columns).map(|at| first + at as f32).collect::<Vec<f32>>();
        let packed = |stored: [StoredValues; 2]| {
            format!("{:?}", pack_int8(&stored.each_ref().map(StoredValues::matrix), 2 * rows, columns))
        };
        let same = packed([smoothed(&a, &factors(1.0)), smoothed(&b, &factors(1.0))]);
        assert!(same.contains("smoothing: [1.0, 0.5"), "{same}");
        let [one, other] = [smoothed(&a, &factors(1.0)), smoothed(&b, &factors(2.0))];
        let again = |stored: &StoredValues| {
            let (whole, units) = quantize_rows(&stored.matrix().to_f32(), columns);
            int8(&whole, units, InputRounding::default())
        };
        let plain = packed([again(&one), again(&other)]);
        assert_eq!(packed([one, other]), plain);
    }
}
