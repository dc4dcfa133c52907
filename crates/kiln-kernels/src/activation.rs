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
