//! The weight of a linear layer, in whatever form it is held.

use std::fmt::Debug;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use crate::StoredValues;

/// The parameters of a linear layer: `x · weight + bias`.
#[derive(Clone, Debug)]
pub struct Affine {
    /// `[input, output]`
    pub weight: Weight,
    /// `[output]`
    pub bias: Tensor<1>,
}

impl Affine {
    /// A layer whose weight is one tensor.
    pub fn new(weight: Tensor<2>, bias: Tensor<1>) -> Self {
        Self { weight: weight.into(), bias }
    }
}

/// The weight of a linear layer, `[input, output]`: what every product with a weight reads.
#[derive(Clone, Debug)]
pub struct Weight {
    base: Base,
    /// Whether a gradient of `base` may be asked for. Without it a backward pass keeps no input of the layer.
    is_trained: bool,
}

#[derive(Clone, Debug)]
enum Base {
    Dense(Tensor<2>),
    Stored(Arc<dyn Storage>, Device),
}

/// A weight that is held in another form than as a tensor of f32. It is not trained.
///
/// Its values are unpacked for each product and dropped after it, or, where packed weights are kept, unpacked once.
pub trait Storage: Debug + Send + Sync {
    /// `[input, output]`
    fn shape(&self) -> [usize; 2];

    /// The values, row-major `[input, output]`.
    fn unpack(&self) -> Vec<f32>;

    /// The values as they are held, row-major `[output, input]`, for a product that packs them without unpacking; none
    /// where they have to be unpacked.
    fn stored(&self) -> Option<StoredValues> {
        None
    }
}

impl From<Tensor<2>> for Weight {
    fn from(tensor: Tensor<2>) -> Self {
        Self { base: Base::Dense(tensor), is_trained: true }
    }
}

impl Weight {
    /// One tensor that gets no gradient.
    pub fn frozen(tensor: Tensor<2>) -> Self {
        Self { base: Base::Dense(tensor), is_trained: false }
    }

    /// A weight in another form; `device` is where products are computed.
    pub fn stored(storage: Arc<dyn Storage>, device: &Device) -> Self {
        Self { base: Base::Stored(storage, device.clone()), is_trained: false }
    }

    /// `[input, output]`
    pub fn shape(&self) -> [usize; 2] {
        match &self.base {
            Base::Dense(tensor) => tensor.dims(),
            Base::Stored(storage, _) => storage.shape(),
        }
    }

    /// The weight as one tensor.
    pub fn dense(self) -> Tensor<2> {
        match self.base {
            Base::Dense(tensor) => tensor,
            Base::Stored(storage, device) => {
                Tensor::from_data(TensorData::new(storage.unpack(), storage.shape()), &device)
            }
        }
    }
}

#[cfg(feature = "flex")]
pub(crate) use operand::{Form, Operand, Place};

#[cfg(feature = "flex")]
mod operand {
    use std::borrow::Cow;
    use std::sync::{Arc, Weak};

    use burn::tensor::{Bytes, Tensor};
    use burn_flex::FlexTensor;

    use super::{Base, Storage, Weight};
    use crate::StoredValues;
    use crate::cpu::{Epilogue, Packed, Simd, Target, View, product};
    use crate::flex::{self, Value, contiguous, rows_and_columns, values};

    /// What a fused operation is told of a weight beside its tensor.
    #[derive(Clone, Debug)]
    pub struct Form {
        stored: Option<Arc<dyn Storage>>,
        /// Whether a gradient may be asked for.
        pub(crate) is_trained: bool,
    }

    impl Weight {
        /// The tensor that takes the weight's place among an operation's operands and in its graph, and the form.
        pub(crate) fn into_parts(self) -> (Tensor<2>, Form) {
            let is_trained = self.is_trained;
            match self.base {
                Base::Dense(tensor) => (tensor, Form { stored: None, is_trained }),
                Base::Stored(storage, device) => {
                    (Tensor::zeros([1, 1], &device), Form { stored: Some(storage), is_trained })
                }
            }
        }
    }

    /// A weight as a fused operation reads it.
    #[derive(Clone, Debug)]
    pub(crate) struct Operand {
        tensor: FlexTensor,
        form: Form,
    }

    /// Where a weight's values are. The weak references keep an address from being used again, and make every change of
    /// a tensor's values move them to another address: nobody but their only owner may change them in place.
    #[derive(Clone, Debug)]
    pub(crate) enum Place {
        /// A tensor's memory, where its values begin, and its shape.
        Memory(Weak<Bytes>, usize, [usize; 2]),
        Storage(Weak<dyn Storage>),
    }

    impl Place {
        /// Whether the values are still there.
        pub(crate) fn is_alive(&self) -> bool {
            match self {
                Self::Memory(memory, ..) => memory.strong_count() > 0,
                Self::Storage(storage) => storage.strong_count() > 0,
            }
        }

        /// The address, and what tells views of one memory apart.
        fn key(&self) -> (*const (), usize, [usize; 2]) {
            match self {
                Self::Memory(memory, start, shape) => (memory.as_ptr().cast(), *start, *shape),
                Self::Storage(storage) => (storage.as_ptr().cast(), 0, [0, 0]),
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
            match &self.form.stored {
                Some(storage) => storage.shape(),
                None => rows_and_columns(&self.tensor),
            }
        }

        /// Row-major `[input, output]`.
        pub(crate) fn values(&self) -> Cow<'_, [f32]> {
            match &self.form.stored {
                Some(storage) => Cow::Owned(storage.unpack()),
                None => Cow::Borrowed(values(&self.tensor)),
            }
        }

        /// As [`Storage::stored`].
        pub(crate) fn stored(&self) -> Option<StoredValues> {
            self.form.stored.as_ref()?.stored()
        }

        pub(crate) fn place(&self) -> Place {
            match &self.form.stored {
                Some(storage) => Place::Storage(Arc::downgrade(storage)),
                None => {
                    let memory = Arc::downgrade(&self.tensor.data_arc());
                    Place::Memory(memory, self.tensor.layout().start_offset(), self.shape())
                }
            }
        }

        pub(crate) fn is_trained(&self) -> bool {
            self.form.is_trained
        }

        /// The gradient of the layer's input, `gradient · weightᵀ`.
        pub(crate) fn input_gradient<E: Value, O: Value>(
            &self,
            gradient: View<'_, E>,
            out: Target<'_, O>,
            epilogue: Epilogue<'_>,
        ) {
            let ([input, output], simd) = (self.shape(), Simd::detect());
            let weight = self.values();
            let packed = Packed::<E>::new(simd, View::new(&weight, input, output, output).transposed());
            drop(weight);
            product(simd, gradient, &packed, out, epilogue);
        }

        /// What is registered for the weight's node: the gradient, `xᵀ · gradient`.
        pub(crate) fn gradient<E: Value>(&self, x: View<'_, E>, gradient: View<'_, E>) -> FlexTensor {
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
            Self::new(tensor, Form { stored: None, is_trained: true })
        }
    }
}
