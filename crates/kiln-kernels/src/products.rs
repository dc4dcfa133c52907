/// What the operands of products are rounded to. Weights stay f32, and so do sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Not at all.
    #[default]
    F32,
    /// To bf16, and so is what the backward pass keeps; where operations are fused, otherwise not at all.
    Bf16,
    /// Where operations are fused and nothing is trained: weights to 8 bits, a unit for each output, and what they are
    /// multiplied with to 8 bits, a unit for each row; everything between products as [`Precision::Bf16`], which it is in
    /// training.
    Int8,
}

/// How a model's products are computed.
#[derive(Clone, Debug, Default)]
pub struct Products {
    /// What their operands are rounded to.
    pub precision: Precision,
    /// Where packed weights are kept, for a model that is only read: its weights are laid out once, not for every product.
    /// They take the memory of the weights again.
    pub packed: Option<PackedWeights>,
    /// Whether dropout is active without autodiff too, for a forward pass that will be computed again under it.
    pub drops: bool,
}

pub use kept::PackedWeights;
#[cfg(feature = "flex")]
pub(crate) use kept::side_by_side;

#[cfg(not(feature = "flex"))]
mod kept {
    /// Nothing: no operation is fused.
    #[derive(Clone, Debug, Default)]
    pub struct PackedWeights {}
}

#[cfg(feature = "flex")]
mod kept {
    use std::any::{Any, TypeId};
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex, PoisonError, Weak};

    use burn::tensor::Bytes;
    use burn_flex::FlexTensor;

    use super::Products;
    use crate::cpu::{Kernels, Packed, Simd, View};
    use crate::flex::{rows_and_columns, values};

    /// The packed weights of a model, shared by its clones.
    #[derive(Clone, Debug, Default)]
    pub struct PackedWeights(Arc<Mutex<HashMap<Key, Entry>>>);

    /// A weight's memory, the first where there are several, and what it is packed as.
    type Key = (usize, TypeId);

    /// While the weak reference is there the address is no other tensor's, and its values are not changed in place.
    #[derive(Debug)]
    struct Entry {
        weight: Weak<Bytes>,
        packed: Arc<dyn Any + Send + Sync>,
    }

    /// Weights of one input, `[input, output]` each, side by side.
    pub(crate) fn side_by_side(weights: &[&FlexTensor]) -> (Vec<f32>, [usize; 2]) {
        let [input, output] = rows_and_columns(weights[0]);
        let mut joined = vec![0f32; input * output * weights.len()];
        for (row, to) in joined.chunks_exact_mut((output * weights.len()).max(1)).enumerate() {
            for (to, weight) in to.chunks_exact_mut(output).zip(weights) {
                to.copy_from_slice(&values::<f32>(weight)[row * output..][..output]);
            }
        }
        (joined, [input, output * weights.len()])
    }

    impl Products {
        /// Weights of one input, `[input, output]` each, as one product's right operand. The first stands for all of
        /// them: it is never packed with others.
        pub(crate) fn pack<E: Kernels>(&self, weights: &[&FlexTensor]) -> Arc<Packed<E>> {
            let simd = Simd::detect();
            let pack = || match weights {
                [weight] => {
                    let [input, output] = rows_and_columns(weight);
                    Arc::new(Packed::<E>::new(simd, View::new(values::<f32>(weight), input, output, output)))
                }
                _ => {
                    let (joined, [input, output]) = side_by_side(weights);
                    Arc::new(Packed::<E>::new(simd, View::new(&joined, input, output, output)))
                }
            };
            let Some(PackedWeights(kept)) = &self.packed else { return pack() };
            let bytes = weights[0].data_arc();
            let key = (Arc::as_ptr(&bytes) as usize, TypeId::of::<E>());
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(packed) = kept.get(&key).and_then(|entry| entry.packed.clone().downcast().ok()) {
                return packed;
            }
            kept.retain(|_, entry| entry.weight.strong_count() > 0);
            let packed = pack();
            kept.insert(key, Entry { weight: Arc::downgrade(&bytes), packed: packed.clone() });
            packed
        }
    }
}
