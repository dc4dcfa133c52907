use half::f16;

/// The size of a number in half precision, in bytes.
pub const F16: usize = size_of::<f16>();

/// Rounds each number to the nearest finite number in half precision. The bytes are little-endian.
pub fn to_f16(numbers: &[f32]) -> Vec<u8> {
    let nearest = |&number: &f32| f16::from_f32(number.clamp(f16::MIN.to_f32(), f16::MAX.to_f32())).to_le_bytes();
    numbers.iter().flat_map(nearest).collect()
}

/// Reads the numbers that [`to_f16`] wrote.
pub fn from_f16(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks().0.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_and_stay_finite() {
        let bytes = to_f16(&[1.5, -0.1, 1e6, f32::NEG_INFINITY]);
        assert_eq!(bytes.len(), 4 * F16);
        assert_eq!(from_f16(&bytes).collect::<Vec<f32>>(), [1.5, -0.099_975_586, 65_504.0, -65_504.0]);
    }
}
