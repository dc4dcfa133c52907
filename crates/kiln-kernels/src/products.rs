use burn::tensor::{DType, Tensor};

use crate::DropoutSeeds;

/// The type that the operands of products are rounded to. Weights and sums stay f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// No rounding.
    #[default]
    F32,
    /// bf16, also for the values that the backward pass keeps.
    Bf16,
    /// 8-bit integers in fused operations without training. Weights have one scale per output, and activations have one
    /// scale per row. Everything else is computed as in [`Precision::Bf16`].
    Int8,
}

impl Precision {
    /// Rounds an operand of one of burn's products. Burn has no int8 products, so these are computed in bf16.
    pub(crate) fn rounded<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::F32 => x,
            Self::Bf16 | Self::Int8 => x.cast(DType::BF16),
        }
    }

    /// Converts the result of such a product to f32, for the operations between products.
    pub(crate) fn widened<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::F32 => x,
            Self::Bf16 | Self::Int8 => x.cast(DType::F32),
        }
    }
}

/// How a model's products are computed.
#[derive(Clone, Debug, Default)]
pub struct Products {
    /// The type that operands are rounded to.
    pub precision: Precision,
    /// Where packed weights are kept, for inference. Each weight is packed once instead of for every product. The packed
    /// copies take as much memory as the weights.
    pub packed: Option<PackedWeights>,
    /// Seeds for dropout. If given, dropout is also active without autodiff, for a forward pass that is computed again
    /// under autodiff.
    pub dropout_seeds: Option<DropoutSeeds>,
}

pub use kept::PackedWeights;

#[cfg(not(feature = "flex"))]
mod kept {
    /// Empty, because no operation is fused.
    #[derive(Clone, Debug, Default)]
    pub struct PackedWeights {}
}

#[cfg(feature = "flex")]
mod kept {
    use std::any::{Any, TypeId};
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex, PoisonError};

    use super::Products;
    use crate::cpu::{Element, Epilogue, Kernels, Packed, Simd, Source, View, new_product};
    use crate::stored::pack_stored;
    use crate::weight::{self, Operand, Place, parts};

    /// The packed weights of a model, shared by its clones.
    #[derive(Clone, Debug, Default)]
    pub struct PackedWeights(Arc<Mutex<HashMap<Key, Arc<dyn Any + Send + Sync>>>>);

    /// The places of all weights that were packed together, in order, and the type that they were packed as.
    #[derive(Debug, PartialEq, Eq, Hash)]
    struct Key {
        weights: Vec<Place>,
        element: TypeId,
    }

    impl Products {
        /// Multiplies `x` with weights of one shape, `[input, output]` each, side by side, and applies an epilogue.
        pub(crate) fn multiply<E: Source<W>, W: Kernels, O: Element>(
            &self,
            x: View<'_, E>,
            weights: &[&Operand],
            epilogue: Epilogue<'_>,
        ) -> Vec<O> {
            let (simd, outputs) = (Simd::detect(), weights.iter().map(|weight| weight.shape()[1]).sum());
            let whole = if self.packed.is_some() { Some(self.pack::<W>(weights)) } else { pack_stored(weights) };
            match whole {
                Some(packed) => new_product(simd, x, outputs, std::iter::once(packed), epilogue),
                None => {
                    let packed = parts(x.cols(), outputs).map(|part| weight::pack::<W>(weights, part));
                    new_product(simd, x, outputs, packed, epilogue)
                }
            }
        }

        /// Packs weights of one shape, `[input, output]` each, side by side as the right operand of one product.
        pub(crate) fn pack<E: Kernels>(&self, weights: &[&Operand]) -> Arc<Packed<E>> {
            let outputs = weights.iter().map(|weight| weight.shape()[1]).sum();
            let pack = || pack_stored(weights).unwrap_or_else(|| Arc::new(weight::pack(weights, 0..outputs)));
            let Some(PackedWeights(kept)) = &self.packed else { return pack() };
            let key = Key {
                weights: weights.iter().flat_map(|weight| weight.places()).collect(),
                element: TypeId::of::<E>(),
            };
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(packed) = kept.get(&key).and_then(|packed| packed.clone().downcast().ok()) {
                return packed;
            }
            kept.retain(|key, _| key.weights.iter().all(Place::is_alive));
            let packed = pack();
            kept.insert(key, packed.clone());
            packed
        }
    }

    #[cfg(test)]
    mod tests {
        use std::ops::Range;

        use burn_flex::FlexTensor;
        use half::bf16;

        use super::*;
        use crate::flex::new;

        fn tensor(first: f32) -> FlexTensor {
            new((0..12).map(|at| first + at as f32).collect::<Vec<f32>>(), &[3, 4])
        }

        fn weight(first: f32) -> Operand {
            tensor(first).into()
        }

        fn caching() -> Products {
            Products { packed: Some(PackedWeights::default()), ..Products::default() }
        }

        fn count(products: &Products) -> usize {
            let PackedWeights(kept) = products.packed.as_ref().expect("it was given");
            kept.lock().unwrap_or_else(PoisonError::into_inner).len()
        }

        #[test]
        fn a_weight_is_packed_once() {
            let (products, weight) = (caching(), weight(0.0));
            let first = products.pack::<f32>(&[&weight]);
            assert!(Arc::ptr_eq(&first, &products.pack::<f32>(&[&weight.clone()])), "the same memory");
            assert!(Arc::ptr_eq(&first, &products.clone().pack::<f32>(&[&weight])), "clones share what is kept");
            let as_bf16 = products.pack::<bf16>(&[&weight]);
            assert!(Arc::ptr_eq(&as_bf16, &products.pack::<bf16>(&[&weight])));
            assert_eq!(count(&products), 2, "of both elements");
        }

        #[test]
        fn every_weight_of_a_joined_product_counts() {
            let products = caching();
            let (key, value, other) = (weight(0.0), weight(100.0), weight(200.0));
            let joined = products.pack::<f32>(&[&key, &value]);
            assert!(Arc::ptr_eq(&joined, &products.pack::<f32>(&[&key, &value])));
            for weights in [&[&key, &other][..], &[&key], &[&value, &key]] {
                let packed = products.pack::<f32>(weights);
                let fresh = Products::default().pack::<f32>(weights);
                assert_eq!(format!("{packed:?}"), format!("{fresh:?}"));
                assert!(!Arc::ptr_eq(&joined, &packed));
            }
        }

        #[test]
        fn views_of_one_memory_are_told_apart() {
            let (products, whole) = (caching(), new((0..24).map(|at| at as f32).collect::<Vec<f32>>(), &[6, 4]));
            let part = |start: usize, shape: [usize; 2]| {
                let layout = whole.layout().narrow(0, start, 3).reshape(shape.into());
                let layout = layout.expect("its rows lie in one piece");
                Operand::from(FlexTensor::from_arc(whole.data_arc(), layout, whole.dtype()))
            };
            for view in [part(0, [3, 4]), part(3, [3, 4]), part(0, [4, 3]), part(3, [4, 3])] {
                let (kept, fresh) = (products.pack::<f32>(&[&view]), Products::default().pack::<f32>(&[&view]));
                assert_eq!(format!("{kept:?}"), format!("{fresh:?}"), "{view:?}");
            }
            assert_eq!(count(&products), 4);
        }

        #[test]
        fn a_weight_changed_in_place_is_packed_again() {
            let (products, mut weight) = (caching(), tensor(0.0));
            let before = products.pack::<f32>(&[&weight.clone().into()]);
            weight.storage_mut::<f32>()[0] = 7.0;
            let weight = Operand::from(weight);
            let after = products.pack::<f32>(&[&weight]);
            assert!(!Arc::ptr_eq(&before, &after));
            assert_eq!(format!("{after:?}"), format!("{:?}", Products::default().pack::<f32>(&[&weight])));
            assert_eq!(count(&products), 1, "what no weight has any more is dropped");
        }

        /// Weights that are not kept are packed in parts, with bit-identical results.
        #[test]
        fn parts_of_a_large_weight_multiply_as_the_whole() {
            let [rows, input, output] = [3, 1100, 1301];
            let values = |len: usize| (0..len).map(|at| ((at * 37 % 101) as f32 - 50.0) / 64.0).collect::<Vec<f32>>();
            let weight = Operand::from(new(values(input * output), &[input, output]));
            assert!(parts(input, output).count() > 1 && parts(input, 2 * output).count() > 2, "it is large");
            let (x, bias) = (values(rows * input), values(2 * output));
            let x = View::new(&x, rows, input, input);
            for weights in [&[&weight][..], &[&weight, &weight]] {
                let bias = Epilogue::Bias(&bias[..weights.len() * output]);
                let in_parts: Vec<f32> = Products::default().multiply::<f32, f32, f32>(x, weights, bias);
                let whole: Vec<f32> = caching().multiply::<f32, f32, f32>(x, weights, bias);
                assert_eq!(in_parts, whole);
            }
        }

        /// Twelve consecutive numbers, starting with the given one.
        #[derive(Debug)]
        struct Counting(f32);

        impl crate::Storage for Counting {
            fn shape(&self) -> [usize; 2] {
                [3, 4]
            }

            fn unpack_block(&self, inputs: Range<usize>, outputs: Range<usize>, values: &mut [f32]) {
                let places = inputs.flat_map(|input| outputs.clone().map(move |output| input * 4 + output));
                values.iter_mut().zip(places).for_each(|(value, at)| *value = self.0 + at as f32);
            }
        }

        #[test]
        fn a_stored_weight_is_unpacked_once() {
            let products = caching();
            let stored = |first: f32| {
                let weight = crate::Weight::stored(Arc::new(Counting(first)), &burn::tensor::Device::flex());
                Operand::new(tensor(99.0), weight.into_parts(&products).1)
            };
            let (one, other) = (stored(0.0), stored(50.0));
            let first = products.pack::<f32>(&[&one]);
            assert!(Arc::ptr_eq(&first, &products.pack::<f32>(&[&one.clone()])));
            assert_eq!(format!("{first:?}"), format!("{:?}", Products::default().pack::<f32>(&[&weight(0.0)])));
            let joined = products.pack::<f32>(&[&one, &other]);
            let expected = Products::default().pack::<f32>(&[&weight(0.0), &weight(50.0)]);
            assert_eq!(format!("{joined:?}"), format!("{expected:?}"));
            drop((one, other));
            products.pack::<f32>(&[&weight(1.0)]);
            assert_eq!(count(&products), 1, "what no weight has any more is dropped");
        }
    }
}
