//! Conversions between burn's CPU tensors and slices.

use burn::tensor::TensorData;
use burn_flex::FlexTensor;

use crate::cpu::{Element, Kernels, Simd, Source, View};

/// An element type of tensors that is also an operand type of products.
pub(crate) trait Value: Kernels + Source<Self> + burn::tensor::Element {}
impl<E: Kernels + Source<Self> + burn::tensor::Element> Value for E {}

/// The values of a contiguous tensor.
pub(crate) fn values<E: Value>(tensor: &FlexTensor) -> &[E] {
    tensor.as_slice().expect("it was made contiguous, and of this type")
}

/// The values of a contiguous tensor, mutable. They are copied if another tensor shares them.
pub(crate) fn values_mut<E: Value>(tensor: &mut FlexTensor) -> &mut [E] {
    let (first, len) = (tensor.layout().start_offset(), tensor.layout().num_elements());
    &mut tensor.storage_mut::<E>()[first..][..len]
}

/// Views a tensor as a matrix whose columns are its last axis.
pub(crate) fn matrix<E: Value>(tensor: &FlexTensor) -> View<'_, E> {
    let [rows, columns] = rows_and_columns(tensor);
    View::new(values(tensor), rows, columns, columns)
}

/// Makes a tensor contiguous and rounds it to `E`. Shares the memory if it already is.
pub(crate) fn rounded<E: Value>(tensor: FlexTensor) -> FlexTensor {
    let tensor = contiguous(tensor);
    if tensor.dtype() == E::dtype() {
        return tensor;
    }
    let mut out = vec![E::default(); tensor.layout().num_elements()];
    crate::cpu::round_all(Simd::detect(), values::<f32>(&tensor), &mut out);
    new(out, tensor.layout().shape().as_slice())
}

/// Makes a tensor contiguous and converts it to f32.
pub(crate) fn widened(tensor: FlexTensor) -> FlexTensor {
    let tensor = contiguous(tensor);
    if tensor.dtype() == burn::tensor::DType::F32 {
        return tensor;
    }
    let values: Vec<f32> = values::<half::bf16>(&tensor).iter().map(|value| value.to_f32()).collect();
    new(values, tensor.layout().shape().as_slice())
}

/// Reads a tensor of integers as indices.
///
/// # Panics
/// When one of them is negative.
pub(crate) fn indices(tensor: FlexTensor) -> Vec<usize> {
    let data = contiguous(tensor).into_data();
    data.iter::<i64>().map(|index| usize::try_from(index).expect("an index is not negative")).collect()
}

/// Converts a padding mask into a token mask: true where a position holds a token.
pub(crate) fn token_mask(padding: FlexTensor) -> Vec<bool> {
    let padding = contiguous(padding);
    let (first, len) = (padding.layout().start_offset(), padding.layout().num_elements());
    padding.storage::<u8>()[first..][..len].iter().map(|padding| *padding == 0).collect()
}

/// The contiguous values of a CPU tensor, without its graph.
pub(crate) fn primitive<const D: usize>(tensor: burn::tensor::Tensor<D>) -> FlexTensor {
    let tensor = if tensor.is_autodiff() { tensor.inner() } else { tensor };
    contiguous(tensor.try_into_primitive::<burn::backend::Flex>().expect("it is on flex"))
}

pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }
}

pub(crate) fn new<E: Value>(values: Vec<E>, shape: &[usize]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// `[rows, columns]` of a tensor, where the columns are its last axis.
pub(crate) fn rows_and_columns(tensor: &FlexTensor) -> [usize; 2] {
    let shape = tensor.layout().shape();
    let columns = *shape.as_slice().last().expect("a matrix has axes");
    [shape.num_elements() / columns.max(1), columns]
}

/// The shape of `tensor` with its last axis replaced.
pub(crate) fn with_last(tensor: &FlexTensor, last: usize) -> Vec<usize> {
    let mut shape = tensor.layout().shape().as_slice().to_vec();
    *shape.last_mut().expect("a matrix has axes") = last;
    shape
}

/// Makes a tensor contiguous, in memory that holds nothing else.
pub(crate) fn whole(tensor: FlexTensor) -> FlexTensor {
    let is_whole = tensor.is_contiguous()
        && tensor.layout().start_offset() == 0
        && tensor.bytes().len() == tensor.layout().num_elements() * size_of::<f32>();
    if is_whole { tensor } else { tensor.to_contiguous() }
}

/// Sums `[rows, columns]` over the rows.
pub(crate) fn column_sums<E: Element>(values: &[E], columns: usize) -> Vec<f32> {
    crate::cpu::column_sums(Simd::detect(), values, columns)
}
