use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};
use kiln_kernels::LowRank;

/// A low-rank update of a linear layer's weight, with peft's names for its parameters.
#[derive(Module, Debug)]
pub struct Adapter {
    /// `[input, rank]`
    pub lora_a: LoraFactor,
    /// `[rank, output]`
    pub lora_b: LoraFactor,
    /// DoRA's magnitudes, `[output]`.
    pub lora_magnitude_vector: Option<Param<Tensor<1>>>,
    /// The factor of the product `lora_a · lora_b`.
    pub scale: f64,
    /// Dropout probability of the layer's input features in training.
    #[module(skip)]
    pub dropout: f64,
}

/// One of the two factors of an [`Adapter`].
#[derive(Module, Debug)]
pub struct LoraFactor {
    /// The factor, transposed in a checkpoint.
    pub weight: Param<Tensor<2>>,
}

impl Adapter {
    /// A fresh update of a weight `[input, output]`. It does not change the weight yet: the first factor is uniform in
    /// ±1/√input, as in peft, and the second is zero.
    pub fn new([input, output]: [usize; 2], rank: usize, scale: f64, device: &Device) -> Self {
        let limit = 1.0 / (input as f64).sqrt();
        let first = Initializer::Uniform { min: -limit, max: limit };
        Self {
            lora_a: LoraFactor { weight: first.init([input, rank], device) },
            lora_b: LoraFactor { weight: Initializer::Zeros.init([rank, output], device) },
            lora_magnitude_vector: None,
            scale,
            dropout: 0.0,
        }
    }

    /// The update, as a fused operation reads it.
    pub(crate) fn low_rank(&self) -> LowRank {
        LowRank {
            a: self.lora_a.weight.val(),
            b: self.lora_b.weight.val(),
            scale: self.scale,
            magnitude: self.lora_magnitude_vector.as_ref().map(Param::val),
            dropout: self.dropout,
        }
    }
}
