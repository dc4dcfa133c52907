//! The weight of a linear layer, in any form of storage.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData, module};
use rayon::prelude::*;

use crate::{LowRank, Products, StoredValues};

/// The parameters of a linear layer: `x · weight + bias`.
#[derive(Clone, Debug)]
pub struct Affine {
    /// `[input, output]`
    pub weight: Weight,
    /// `[output]`
    pub bias: Tensor<1>,
}

impl Affine {
    /// Creates a layer whose weight is one tensor.
    pub fn new(weight: Tensor<2>, bias: Tensor<1>) -> Self {
        Self { weight: weight.into(), bias }
    }

    /// Computes `x · weight + bias` with burn's operations and rounded operands. The result has the type of the operands.
    pub(crate) fn plain<const D: usize>(self, x: Tensor<D>, products: &Products) -> Tensor<D> {
        let precision = products.precision;
        let weight = precision.rounded(self.weight.plain(products));
        module::linear(precision.rounded(x), weight, Some(precision.rounded(self.bias)))
    }
}

/// The weight of a linear layer, `[input, output]`, with an optional low-rank update.
#[derive(Clone, Debug)]
pub struct Weight {
    base: Base,
    low_rank: Option<LowRank>,
    /// Whether the base gets a gradient. If neither the base nor its low-rank update does, the backward pass does not keep
    /// the layer's input.
    #[cfg_attr(
        not(feature = "flex"),
        expect(dead_code, reason = "burn's own operations keep what their backward passes read")
    )]
    is_trained: bool,
}

#[derive(Clone, Debug)]
enum Base {
    Dense(Tensor<2>),
    Stored(Arc<dyn Storage>, Device),
}

/// A weight that is stored in another form than a tensor of f32. It is not trained.
///
/// Its values are unpacked for each product and dropped after it. When packed weights are kept, they are unpacked once.
pub trait Storage: Debug + Send + Sync {
    /// `[input, output]`
    fn shape(&self) -> [usize; 2];

    /// Writes the values of a range of inputs and outputs, row-major `[inputs, outputs]`.
    ///
    /// # Panics
    /// When a range is out of bounds, or `values` does not have the length of the block.
    fn unpack_block(&self, inputs: Range<usize>, outputs: Range<usize>, values: &mut [f32]);

    /// Writes all values, row-major `[input, output]`, with all threads.
    ///
    /// # Panics
    /// When `values` does not have the length of the weight.
    fn unpack_into(&self, values: &mut [f32]) {
        /// Inputs of a block.
        const INPUTS: usize = 64;
        let [input, output] = self.shape();
        assert_eq!(values.len(), input * output, "a place for each value");
        values.par_chunks_mut((INPUTS * output).max(1)).enumerate().for_each(|(block, values)| {
            self.unpack_block(block * INPUTS..input.min((block + 1) * INPUTS), 0..output, values);
        });
    }

    /// Returns all values, row-major `[input, output]`.
    fn unpack(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.shape().iter().product()];
        self.unpack_into(&mut values);
        values
    }

    /// Returns the values as a tensor `[input, output]` on the device, for a product with burn's operations.
    fn tensor(&self, device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(self.unpack(), self.shape()), device)
    }

    /// The values in their stored form, row-major `[output, input]`, for a product that packs them directly. `None` if they
    /// have to be unpacked.
    fn stored(&self) -> Option<StoredValues> {
        None
    }
}

impl From<Tensor<2>> for Weight {
    fn from(tensor: Tensor<2>) -> Self {
        let is_trained = tensor.is_tracked();
        Self { base: Base::Dense(tensor), low_rank: None, is_trained }
    }
}

impl Weight {
    /// Creates a weight in another form. `device` is where products are computed.
    pub fn stored(storage: Arc<dyn Storage>, device: &Device) -> Self {
        Self { base: Base::Stored(storage, device.clone()), low_rank: None, is_trained: false }
    }

    /// Adds a low-rank update to the weight. The weight itself is no longer trained.
    pub fn with_low_rank(self, low_rank: LowRank) -> Self {
        Self { low_rank: Some(low_rank), is_trained: false, ..self }
    }

    /// `[input, output]`
    pub fn shape(&self) -> [usize; 2] {
        match &self.base {
            Base::Dense(tensor) => tensor.dims(),
            Base::Stored(storage, _) => storage.shape(),
        }
    }

    /// The weight as one tensor, including its low-rank update, without dropout.
    pub fn dense(self) -> Tensor<2> {
        let base = match self.base {
            Base::Dense(tensor) => tensor,
            Base::Stored(storage, device) => unpacked(&*storage, &device),
        };
        match self.low_rank {
            Some(low_rank) => low_rank.added(base),
            None => base,
        }
    }

    /// The weight as one tensor, for a product with burn's operations. Dropout of the low-rank update is applied.
    pub(crate) fn plain(self, products: &Products) -> Tensor<2> {
        let low_rank = self.low_rank.map(|low_rank| low_rank.dropped(products));
        Self { low_rank, ..self }.dense()
    }
}

/// A stored weight as one tensor. On flex it is unpacked on the host, which takes less memory than tensor operations.
fn unpacked(storage: &dyn Storage, device: &Device) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::is_fused(device) {
        return Tensor::from_data(TensorData::new(storage.unpack(), storage.shape()), device);
    }
    storage.tensor(device)
}

#[cfg(feature = "flex")]
mod packing;

#[cfg(feature = "flex")]
pub(crate) use operand::{Form, Operand, Place};
#[cfg(feature = "flex")]
pub(crate) use packing::{pack, pack_transposed, parts};

#[cfg(feature = "flex")]
mod operand {
    use std::sync::{Arc, Weak};

    use burn::tensor::{Bytes, Tensor};
    use burn_flex::FlexTensor;

    use super::packing::{ValueSource, Values, pack_transposed, parts};
    use super::{Base, Storage, Weight};
    use crate::cpu::{Epilogue, Kernels, Lanes, Packed, Simd, Target, View, product};
    use crate::flex::{self, Value, contiguous, primitive, rows_and_columns, values};
    use crate::low_rank::{Factors, carrier};
    use crate::{Products, StoredValues};

    /// What a fused operation needs to know about a weight, in addition to its tensor.
    #[derive(Clone, Debug)]
    pub struct Form {
        held: Held,
        factors: Option<Factors>,
        /// Whether the tensor gets a gradient.
        is_trained: bool,
    }

    /// Where the values are, without the low-rank update.
    #[derive(Clone, Debug)]
    enum Held {
        /// In the operand's tensor.
        Tensor,
        /// In this tensor. The operand's tensor is the carrier of the low-rank factors.
        Elsewhere(FlexTensor),
        Stored(Arc<dyn Storage>),
    }

    impl Weight {
        /// Returns the form, and the tensor that represents the weight among an operation's operands and in its graph.
        pub(crate) fn into_parts(self, products: &Products) -> (Tensor<2>, Form) {
            let Self { base, low_rank, is_trained } = self;
            let Some(low_rank) = low_rank.map(|low_rank| low_rank.dropped(products)) else {
                return match base {
                    Base::Dense(tensor) => (tensor, Form { held: Held::Tensor, factors: None, is_trained }),
                    Base::Stored(storage, device) => {
                        let form = Form { held: Held::Stored(storage), factors: None, is_trained };
                        (Tensor::zeros([1, 1], &device), form)
                    }
                };
            };
            let held = match base {
                Base::Dense(tensor) => Held::Elsewhere(primitive(tensor)),
                Base::Stored(storage, _) => Held::Stored(storage),
            };
            let carrier = carrier(&low_rank);
            let is_trained = carrier.is_tracked();
            (carrier, Form { held, factors: Some(low_rank.into()), is_trained })
        }
    }

    /// A weight, as read by a fused operation.
    #[derive(Clone, Debug)]
    pub(crate) struct Operand {
        tensor: FlexTensor,
        form: Form,
    }

    /// Where a weight's values are. The weak references keep an address from being reused. They also make every change of a
    /// tensor's values move them to another address, because only a sole owner may change values in place.
    #[derive(Clone, Debug)]
    pub(crate) enum Place {
        /// A tensor's memory, the offset of its first value, and its shape.
        Memory(Weak<Bytes>, usize, [usize; 2]),
        Storage(Weak<dyn Storage>),
        /// The bits of the low-rank update's scale.
        Scale(u32),
    }

    impl Place {
        /// Whether the values still exist.
        pub(crate) fn is_alive(&self) -> bool {
            match self {
                Self::Memory(memory, ..) => memory.strong_count() > 0,
                Self::Storage(storage) => storage.strong_count() > 0,
                Self::Scale(_) => true,
            }
        }

        /// The address, and what distinguishes views of the same memory.
        fn key(&self) -> (*const (), usize, [usize; 2]) {
            match self {
                Self::Memory(memory, start, shape) => (memory.as_ptr().cast(), *start, *shape),
                Self::Storage(storage) => (storage.as_ptr().cast(), 0, [0, 0]),
                Self::Scale(bits) => (std::ptr::null(), *bits as usize, [0, 0]),
            }
        }
    }

    impl PartialEq for Place {
        fn eq(&self, other: &Self) -> bool {
            self.key() == other.key()
        }
    }

    impl Eq for Place {}

    impl std::hash::Hash for Place {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            self.key().hash(state);
        }
    }

    impl Operand {
        pub(crate) fn new(tensor: FlexTensor, form: Form) -> Self {
            Self { tensor: contiguous(tensor), form }
        }

        /// `[input, output]`
        pub(crate) fn shape(&self) -> [usize; 2] {
            match &self.form.held {
                Held::Tensor => rows_and_columns(&self.tensor),
                Held::Elsewhere(tensor) => rows_and_columns(tensor),
                Held::Stored(storage) => storage.shape(),
            }
        }

        /// The values with the low-rank update added, row-major `[input, output]`.
        pub(crate) fn values(&self) -> Values<'_> {
            self.sum().0
        }

        /// As [`Storage::stored`]; `None` if the weight has a low-rank update.
        pub(crate) fn stored(&self) -> Option<StoredValues> {
            match (&self.form.held, &self.form.factors) {
                (Held::Stored(storage), None) => storage.stored(),
                _ => None,
            }
        }

        /// [`Operand::values`], and the factor of each column if there is a magnitude.
        fn sum(&self) -> (Values<'_>, Option<Vec<f32>>) {
            let held = match &self.form.held {
                Held::Tensor => Values::Held(values(&self.tensor)),
                Held::Elsewhere(tensor) => Values::Held(values(tensor)),
                Held::Stored(storage) => {
                    let mut unpacked = Lanes::any(storage.shape().iter().product());
                    storage.unpack_into(&mut unpacked);
                    Values::Computed(unpacked)
                }
            };
            let Some(factors) = &self.form.factors else { return (held, None) };
            let mut sum = match held {
                Values::Held(values) => Lanes::copied(values),
                Values::Computed(values) => values,
            };
            let columns = factors.add_to(&mut sum);
            (Values::Computed(sum), columns)
        }

        /// The places of everything that the values are computed from.
        pub(crate) fn places(&self) -> Vec<Place> {
            let memory = |tensor: &FlexTensor| {
                let start = tensor.layout().start_offset();
                Place::Memory(Arc::downgrade(&tensor.data_arc()), start, rows_and_columns(tensor))
            };
            let mut places = vec![match &self.form.held {
                Held::Tensor => memory(&self.tensor),
                Held::Elsewhere(tensor) => memory(tensor),
                Held::Stored(storage) => Place::Storage(Arc::downgrade(storage)),
            }];
            if let Some(factors) = &self.form.factors {
                let (tensors, scale) = factors.parts();
                places.extend(tensors.map(memory));
                places.push(Place::Scale(scale));
            }
            places
        }

        /// Where packing reads the values from.
        pub(super) fn source<E: Kernels>(&self) -> ValueSource<'_> {
            match (&self.form.held, &self.form.factors) {
                // The columns of a quantized operand are read twice, so their values are unpacked as a whole.
                (Held::Stored(storage), None) if !E::QUANTIZED => ValueSource::Storage(&**storage),
                _ => ValueSource::Values(self.values()),
            }
        }

        pub(crate) fn is_trained(&self) -> bool {
            self.form.is_trained
        }

        /// Computes the gradient of the layer's input, `gradient · weightᵀ`. The epilogue stores or accumulates it.
        pub(crate) fn input_gradient<E: Value, O: Value>(
            &self,
            gradient: View<'_, E>,
            mut out: Target<'_, O>,
            epilogue: Epilogue<'_>,
        ) {
            let [input, output] = self.shape();
            for inputs in parts(output, input) {
                let packed = pack_transposed::<E>(&[self], inputs.clone());
                product(Simd::detect(), gradient, &packed, out.from(inputs.start), epilogue);
            }
        }

        /// The gradient that is registered for the weight's node: `xᵀ · gradient`, or the gradients of the low-rank
        /// factors.
        pub(crate) fn gradient<E: Value>(&self, x: View<'_, E>, gradient: View<'_, E>) -> FlexTensor {
            if let Some(factors) = &self.form.factors {
                // Without a magnitude the sum is not read.
                let (sum, columns) = if factors.has_magnitude() { self.sum() } else { (Values::Held(&[]), None) };
                return factors.gradient((&sum, columns), x, gradient);
            }
            let simd = Simd::detect();
            let (input, output) = (x.cols(), gradient.cols());
            let packed = Packed::<E>::new(simd, gradient);
            let mut out = vec![0f32; input * output];
            product(simd, x.transposed(), &packed, Target::whole(&mut out, output), Epilogue::Store);
            flex::new(out, &[input, output])
        }
    }

    #[cfg(test)]
    impl From<FlexTensor> for Operand {
        fn from(tensor: FlexTensor) -> Self {
            Self::new(tensor, Form { held: Held::Tensor, factors: None, is_trained: true })
        }
    }
}
