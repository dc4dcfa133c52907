use std::sync::Arc;

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};
use kiln_kernels::{ActivatedLinear, Activation, Affine, Products, Storage, Weight};

use crate::Adapter;

/// A linear layer, `x · weight + bias`: every one of the encoder, the pooler and the heads.
///
/// What its products read is a [`Weight`], whatever form that is held in: [`Linear::affine`] gives it to a fused operation.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[input, output]`; none where the weight is stored in another form.
    pub weight: Option<Param<Tensor<2>>>,
    /// `[output]`
    pub bias: Param<Tensor<1>>,
    /// What is added to the weight.
    pub adapter: Option<Adapter>,
    /// The weight in another form.
    #[module(skip)]
    stored: Option<Arc<dyn Storage>>,
}

impl Linear {
    /// A layer with fresh weights, normal of this standard deviation, and a bias of zeros.
    pub fn new([input, output]: [usize; 2], standard_deviation: f64, device: &Device) -> Self {
        let normal = Initializer::Normal { mean: 0.0, std: standard_deviation };
        Self {
            weight: Some(normal.init([input, output], device)),
            bias: Initializer::Zeros.init([output], device),
            adapter: None,
            stored: None,
        }
    }

    /// `[input, output]`
    pub fn shape(&self) -> [usize; 2] {
        match (&self.weight, &self.stored) {
            (Some(weight), _) => weight.lazy_shape().dims(),
            (None, Some(stored)) => stored.shape(),
            (None, None) => unreachable!("a linear layer has a weight"),
        }
    }

    /// Whether the weight is in another form than a tensor.
    pub fn is_stored(&self) -> bool {
        self.stored.is_some()
    }

    /// The weight as one tensor, `[input, output]`, with what its adapter adds.
    pub fn dense_weight(&self) -> Tensor<2> {
        self.affine().weight.dense()
    }

    /// The same layer with its weight in another form, which is not trained.
    ///
    /// # Panics
    /// When the shapes differ.
    pub fn with_stored_weight(self, stored: Arc<dyn Storage>) -> Self {
        assert_eq!(stored.shape(), self.shape(), "a weight of the layer's shape");
        Self { weight: None, stored: Some(stored), ..self }
    }

    /// The same layer with its adapter's part in the weight, which becomes one tensor.
    pub fn merged(self) -> Self {
        let weight = Some(Param::from_tensor(self.dense_weight()));
        Self { weight, adapter: None, stored: None, ..self }
    }

    /// What a product with this layer reads.
    pub fn affine(&self) -> Affine {
        let bias = self.bias.val();
        let weight = match (&self.weight, &self.stored) {
            (Some(weight), _) => weight.val().into(),
            (None, Some(stored)) => Weight::stored(stored.clone(), &bias.device()),
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
        ActivatedLinear { linear: self.affine(), activation }.forward(x, products)
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
