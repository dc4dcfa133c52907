/// Maps `index` to its place in a permutation of `0..count` that the seed selects. It needs no table: a Feistel network over
/// the next power of four is applied until the result is below `count` (Black and Rogaway, 2002).
///
/// # Panics
/// When `index` is not below `count`.
pub(crate) fn permute(index: u64, count: u64, seed: u64) -> u64 {
    assert!(index < count, "{index} of {count}");
    let half_bits = (u64::BITS - (count - 1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1u64 << half_bits) - 1;
    let mut place = index;
    loop {
        let (mut left, mut right) = (place >> half_bits, place & mask);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ (mix(seed.wrapping_add(round) ^ right.rotate_left(32)) & mask));
        }
        place = left << half_bits | right;
        if place < count {
            return place;
        }
    }
}

const ROUNDS: u64 = 6;

/// SplitMix64's finalizer (Steele et al., 2014).
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_is_taken_once_and_orders_differ() {
        for count in [1, 2, 3, 5, 16, 17, 1_000, 4_097] {
            let order = |seed| (0..count).map(|index| permute(index, count, seed)).collect::<Vec<_>>();
            let mut sorted = order(7);
            sorted.sort_unstable();
            assert_eq!(sorted, (0..count).collect::<Vec<_>>());
            assert!(count < 16 || order(7) != order(8));
            let stays = (0..count).filter(|&index| permute(index, count, 7) == index).count();
            assert!(count < 16 || stays < 8, "{stays} of {count} stay where they are");
        }
    }
}
