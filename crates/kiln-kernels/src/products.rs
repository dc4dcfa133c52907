/// What the operands of products are rounded to. Weights stay f32, and so do sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Not at all.
    #[default]
    F32,
    /// To bf16, and so is what the backward pass keeps; where operations are fused, otherwise not at all.
    Bf16,
}

/// How a model's products are computed.
#[derive(Clone, Debug, Default)]
pub struct Products {
    /// What their operands are rounded to.
    pub precision: Precision,
    /// Where packed weights are kept, for a model that is only read: its weights are laid out once, not for every product.
    /// They take the memory of the weights again.
    pub packed: Option<PackedWeights>,
}

pub use kept::PackedWeights;

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
    use crate::cpu::{Packed, Simd, Source, View};
    use crate::flex::{Value, rows_and_columns, values};

    /// The packed weights of a model, shared by its clones.
    #[derive(Clone, Debug, Default)]
    pub struct PackedWeights(Arc<Mutex<HashMap<Key, Entry>>>);

    /// A weight's memory, and what it is packed as.
    type Key = (usize, TypeId);

    /// While the weak reference is there the address is no other tensor's, and its values are not changed in place.
    #[derive(Debug)]
    struct Entry {
        weight: Weak<Bytes>,
        packed: Arc<dyn Any + Send + Sync>,
    }

    impl Products {
        /// A weight, `[input, output]`, as a product's right operand.
        pub(crate) fn pack<E: Value>(&self, weight: &FlexTensor) -> Arc<Packed<E>>
        where
            f32: Source<E>,
        {
            let pack = || {
                let [input, output] = rows_and_columns(weight);
                Arc::new(Packed::<E>::new(Simd::detect(), View::new(values::<f32>(weight), input, output, output)))
            };
            let Some(PackedWeights(kept)) = &self.packed else { return pack() };
            let bytes = weight.data_arc();
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
