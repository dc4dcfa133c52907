/// What the operands of products are rounded to. Weights stay f32, and so do sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Not at all.
    #[default]
    F32,
    /// To bf16, and so is what the backward pass keeps; where operations are fused, otherwise not at all.
    Bf16,
}
