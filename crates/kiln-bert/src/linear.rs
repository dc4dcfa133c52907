use std::sync::Arc;

use burn::module::{Initializer, Module, Param};
use burn::nn::LayerNorm;
use burn::tensor::{Device, Tensor};
use kiln_kernels::{ActivatedLinear, Activation, Affine, Products, Storage, Weight};

use crate::{Adapter, InputRanges};

/// A linear layer, `x · weight + bias`, as in the encoder, the pooler and the heads.
///
/// [`Linear::affine`] passes the weight to a fused operation as a [`Weight`], whatever form it is stored in.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[input, output]`; none if the weight is stored in another form.
    pub weight: Option<Param<Tensor<2>>>,
    /// `[output]`; none in a layer without a bias.
    pub bias: Option<Param<Tensor<1>>>,
    /// The adapter, whose product is added to the weight.
    pub adapter: Option<Adapter>,
    /// If set, records the range of everything that the layer reads.
    #[module(skip)]
    pub input_ranges: Option<InputRanges>,
    /// The weight in another form, and the device of the tensor that it replaced.
    #[module(skip)]
    stored: Option<(Arc<dyn Storage>, Device)>,
}

impl Linear {
    /// A layer with fresh weights, from a normal distribution with this standard deviation, and a zero bias.
    pub fn new([input, output]: [usize; 2], standard_deviation: f64, device: &Device) -> Self {
        let normal = Initializer::Normal { mean: 0.0, std: standard_deviation };
        Self {
            weight: Some(normal.init([input, output], device)),
            bias: Some(Initializer::Zeros.init([output], device)),
            adapter: None,
            input_ranges: None,
            stored: None,
        }
    }

    /// The same layer, without its bias if `has_bias` is false.
    pub fn biased(self, has_bias: bool) -> Self {
        Self { bias: self.bias.filter(|_| has_bias), ..self }
    }

    /// `[input, output]`
    pub fn shape(&self) -> [usize; 2] {
        match (&self.weight, &self.stored) {
            (Some(weight), _) => weight.lazy_shape().dims(),
            (None, Some((stored, _))) => stored.shape(),
            (None, None) => unreachable!("a linear layer has a weight"),
        }
    }

    /// Whether the weight is stored in a form other than a tensor.
    pub fn is_stored(&self) -> bool {
        self.stored.is_some()
    }

    /// The weight as one tensor, `[input, output]`, including the adapter.
    pub fn dense_weight(&self) -> Tensor<2> {
        let device = match (&self.weight, &self.stored) {
            (Some(weight), _) => weight.val().device(),
            (None, Some((_, device))) => device.clone(),
            (None, None) => unreachable!("a linear layer has a weight"),
        };
        self.parameters(&device).weight.dense()
    }

    /// The same layer with its weight in another form. A stored weight is not trained.
    ///
    /// # Panics
    /// When the shapes differ.
    pub fn with_stored_weight(self, stored: Arc<dyn Storage>) -> Self {
        assert_eq!(stored.shape(), self.shape(), "a weight of the layer's shape");
        let device = match (&self.weight, &self.stored) {
            (Some(weight), _) => weight.lazy_device(),
            (None, Some((_, device))) => device.clone(),
            (None, None) => unreachable!("a linear layer has a weight"),
        };
        Self { weight: None, stored: Some((stored, device)), ..self }
    }

    /// The same layer with its adapter merged into the weight, which becomes one tensor.
    pub fn merged(self) -> Self {
        let weight = Some(Param::from_tensor(self.dense_weight()));
        Self { weight, adapter: None, stored: None, ..self }
    }

    /// The parameters for a fused operation that multiplies `x`, `[…, input]`, by the weight. Records `x` if
    /// `input_ranges` is set.
    pub fn affine<const D: usize>(&self, x: &Tensor<D>) -> Affine {
        if let Some(ranges) = &self.input_ranges {
            ranges.observe(x);
        }
        self.parameters(&x.device())
    }

    /// The parameters for a fused operation, without recording its input.
    pub(crate) fn parameters(&self, device: &Device) -> Affine {
        let [_, output] = self.shape();
        let bias = self.bias.as_ref().map_or_else(|| Tensor::zeros([output], device), Param::val);
        let weight = match (&self.weight, &self.stored) {
            (Some(weight), _) => weight.val().into(),
            (None, Some((stored, _))) => Weight::stored(stored.clone(), device),
            (None, None) => unreachable!("a linear layer has a weight"),
        };
        let weight = match &self.adapter {
            Some(adapter) => weight.with_low_rank(adapter.low_rank()),
            None => weight,
        };
        Affine { weight, bias }
    }

    /// `activation(x · weight + bias)`
    ///
    /// # Shapes
    /// - `x`: `[…, input]`
    /// - output: `[…, output]`
    pub fn activated<const D: usize>(&self, x: Tensor<D>, activation: Activation, products: &Products) -> Tensor<D> {
        ActivatedLinear { linear: self.affine(&x), activation }.forward(x, products)
    }

    /// `x · weight + bias` in f32, whatever the encoder's precision: for poolers and heads.
    ///
    /// # Shapes
    /// - `x`: `[…, input]`
    /// - output: `[…, output]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.activated(x, Activation::Identity, &Products::default())
    }
}

/// The parameters of a layer normalization for a fused operation. A missing bias becomes zeros.
pub(crate) fn normalization(norm: &LayerNorm, epsilon: f64) -> kiln_kernels::LayerNorm {
    let gamma = norm.gamma.val();
    let beta = norm.beta.as_ref().map_or_else(|| gamma.zeros_like().detach(), Param::val);
    kiln_kernels::LayerNorm { gamma, beta, epsilon }
}
