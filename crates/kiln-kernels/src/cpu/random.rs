/// Dropout with a random stream that is a function of seed, row and column. Any thread draws the same number for an
/// element, and the backward pass draws it again instead of keeping it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    threshold: u32,
    scale: f32,
    seed: u64,
}

impl Dropout {
    /// Zeroes values with `probability` and divides the others by its complement. `None` if the probability is too small to
    /// drop anything.
    ///
    /// # Panics
    /// When the probability is not in `0.0..1.0`.
    pub fn new(probability: f64, seed: u64) -> Option<Self> {
        assert!((0.0..1.0).contains(&probability), "a dropout probability of {probability}");
        let threshold = (probability * 2f64.powi(32)) as u32;
        (threshold > 0).then(|| Self { threshold, scale: (1.0 / (1.0 - probability)) as f32, seed })
    }

    /// The random stream of a row.
    #[inline(always)]
    pub(super) fn row(self, row: u64) -> RowDropout {
        // splitmix64
        let mut key = (self.seed ^ row.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        key ^= key >> 31;
        RowDropout { threshold: self.threshold, scale: self.scale, key: [key as u32, (key >> 32) as u32] }
    }
}

#[derive(Clone, Copy)]
pub(super) struct RowDropout {
    threshold: u32,
    scale: f32,
    key: [u32; 2],
}

impl RowDropout {
    /// The factor of the value in a column: 0, or 1 / (1 − p).
    #[inline(always)]
    pub(super) fn factor(&self, column: usize) -> f32 {
        let mut hash = column as u32 ^ self.key[0];
        hash = (hash ^ (hash >> 16)).wrapping_mul(0x7feb_352d);
        hash = (hash ^ (hash >> 15)).wrapping_mul(0x846c_a68b).wrapping_add(self.key[1]);
        hash = (hash ^ (hash >> 16)).wrapping_mul(0x9e37_79b1);
        hash ^= hash >> 15;
        if hash < self.threshold { 0.0 } else { self.scale }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_drops_its_share_everywhere_and_rows_are_independent() {
        let (rows, columns) = (400, 512);
        let dropout = Dropout::new(0.1, 7).expect("something is dropped");
        let dropped = |row: u64, column: usize| dropout.row(row).factor(column) == 0.0;
        let share = |count: usize, of: usize| count as f64 / of as f64;
        let all = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        assert!(
            (share(all.clone().filter(|&(row, column)| dropped(row, column)).count(), 400 * columns) - 0.1).abs()
                < 2e-3
        );
        for column in [0, 1, 255, 511] {
            assert!((share((0..rows).filter(|&row| dropped(row, column)).count(), 400) - 0.1).abs() < 0.06);
        }
        for (down, right) in [(0, 1), (1, 0), (1, 1), (0, 16)] {
            let both = all.clone().filter(|&(row, column)| dropped(row, column) && dropped(row + down, column + right));
            assert!((share(both.count(), 400 * columns) - 0.01).abs() < 1e-3, "{down} {right}");
        }
        let other = Dropout::new(0.1, 8).expect("something is dropped");
        let both = all.filter(|&(row, column)| dropped(row, column) && other.row(row).factor(column) == 0.0);
        assert!((share(both.count(), 400 * columns) - 0.01).abs() < 1e-3);
    }

    #[test]
    fn nothing_is_dropped_at_zero() {
        assert_eq!(Dropout::new(0.0, 1), None);
    }
}
