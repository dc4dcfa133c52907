use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

use burn::tensor::{Tensor, activation};

/// An element-wise function between a linear layer and the next. The formulas are those of transformers' `activations.py`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// x·Φ(x), the exact GELU.
    #[default]
    Gelu,
    /// ½x·(1 + tanh(√(2/π)·(x + 0.044715x³))), GELU's approximation by tanh.
    GeluTanh,
    /// x·σ(1.702x), GELU's approximation by the logistic function.
    QuickGelu,
    /// max(x, 0)
    Relu,
    /// x·σ(x)
    Silu,
    /// tanh(x)
    Tanh,
    /// x
    Identity,
}

impl Activation {
    /// Applies the function to each value, with burn's operations whose derivatives are exact. On backends other than flex,
    /// burn's own GELU has the derivative of its tanh approximation.
    pub(crate) fn plain<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Gelu if !x.is_autodiff() => activation::gelu(x),
            Self::Gelu => {
                let twice_phi = (x.clone() * FRAC_1_SQRT_2).erf() + 1.0;
                x * twice_phi * 0.5
            }
            Self::GeluTanh => {
                let cubed = x.clone() * x.clone() * x.clone();
                let inner = (x.clone() + cubed * 0.044715) * FRAC_2_PI.sqrt();
                x * (inner.tanh() + 1.0) * 0.5
            }
            Self::QuickGelu => x.clone() * activation::sigmoid(x * 1.702),
            Self::Relu => activation::relu(x),
            Self::Silu => x.clone() * activation::sigmoid(x),
            Self::Tanh => x.tanh(),
            Self::Identity => x,
        }
    }
}
