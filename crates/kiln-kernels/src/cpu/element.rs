use std::mem::MaybeUninit;

use half::bf16;

/// An operand type of products. Values are stored in 32-bit lanes, which hold neighbours along the summed axis.
pub trait Element: Copy + Default + Send + Sync + std::fmt::Debug + bytemuck::Pod {
    /// The number of values in a lane.
    const PER_LANE: usize;
    /// Whether the values are integers with a scale for each row and each column.
    const QUANTIZED: bool = false;

    /// Rounds to the nearest value, ties to even.
    fn from_f32(value: f32) -> Self;

    /// Converts without loss.
    fn to_f32(self) -> f32;
}

impl Element for f32 {
    const PER_LANE: usize = 1;

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Element for bf16 {
    const PER_LANE: usize = 2;

    /// As `bf16::from_f32`, but without its branch, so that loops are vectorized.
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        let quiet_nan = (bits >> 16) | 0x40;
        Self::from_bits(if bits & 0x7fff_ffff > 0x7f80_0000 { quiet_nan } else { rounded } as u16)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// In a right operand, integers from −127 to 127 with a scale for each column. The rows of a left operand are bytes from 0
/// to 255.
impl Element for i8 {
    const PER_LANE: usize = 4;
    const QUANTIZED: bool = true;

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value.round_ties_even() as Self
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from(self)
    }
}

/// A place that a result is written to.
pub trait Slot: Send {
    /// Writes the rounded result.
    fn write(&mut self, value: f32);

    /// Adds the result to the present value.
    fn add(&mut self, value: f32);
}

impl<E: Element> Slot for E {
    #[inline(always)]
    fn write(&mut self, value: f32) {
        *self = E::from_f32(value);
    }

    #[inline(always)]
    fn add(&mut self, value: f32) {
        *self = E::from_f32(self.to_f32() + value);
    }
}

/// Memory without a value, which counts as 0.
impl<E: Element> Slot for MaybeUninit<E> {
    #[inline(always)]
    fn write(&mut self, value: f32) {
        self.write(E::from_f32(value));
    }

    #[inline(always)]
    fn add(&mut self, value: f32) {
        self.write(E::from_f32(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_half() {
        let special = [0x3f80_8000, 0x3f81_8000, 0x7f80_0000, 0x7f7f_ffff, 0x7fff_ffff, 0xffff_ffff, 0x8000_0000, 1];
        let spread = (0..1_000_000u32).map(|i| i.wrapping_mul(4297));
        for bits in special.into_iter().chain(spread) {
            let value = f32::from_bits(bits);
            let rounded = <bf16 as Element>::from_f32(value);
            assert_eq!(rounded.to_bits(), bf16::from_f32(value).to_bits(), "{bits:x}");
            assert_eq!(rounded.to_f32().to_bits(), bf16::to_f32(rounded).to_bits());
        }
    }
}
