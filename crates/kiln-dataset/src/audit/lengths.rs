use kiln_schema::{Split, Splits};
use serde::Serialize;

/// Lengths in tokens, as counted by the tokenizer.
#[derive(Clone, Debug)]
pub struct Lengths {
    /// The length of each whole example, including special tokens.
    pub tokens: Splits<Vec<usize>>,
    /// The length to which longer examples are cut, or the length of their windows.
    pub max_length: usize,
}

/// Statistics of the lengths of a split, in tokens including special tokens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LengthAudit {
    /// The shortest length.
    pub min: usize,
    /// The mean length.
    pub mean: f64,
    /// Half of the examples are at most this long.
    pub p50: usize,
    /// 95 % of the examples are at most this long.
    pub p95: usize,
    /// 99 % of the examples are at most this long.
    pub p99: usize,
    /// The longest length.
    pub max: usize,
    /// The maximum length of a model input.
    pub max_length: usize,
    /// The number of examples longer than `max_length`.
    pub longer: usize,
    /// The share of these examples, 0 to 1.
    pub longer_share: f64,
    /// Whether longer examples are read in overlapping windows; otherwise they are cut.
    pub windowed: bool,
}

impl Lengths {
    /// Computes the statistics of a split; none if it has no examples.
    pub(crate) fn audit(&self, split: Split, windowed: bool) -> Option<LengthAudit> {
        let (_, tokens) = self.tokens.iter().find(|(known, _)| *known == split)?;
        let mut sorted = tokens.clone();
        sorted.sort_unstable();
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let rows = sorted.len();
        // Nearest rank: the smallest length that at least `percent` % of the examples do not exceed.
        let percentile = |percent: usize| sorted[(rows * percent).div_ceil(100).max(1) - 1];
        let longer = rows - sorted.partition_point(|length| *length <= self.max_length);
        Some(LengthAudit {
            min,
            mean: sorted.iter().sum::<usize>() as f64 / rows as f64,
            p50: percentile(50),
            p95: percentile(95),
            p99: percentile(99),
            max,
            max_length: self.max_length,
            longer,
            longer_share: longer as f64 / rows as f64,
            windowed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks_and_longer_is_strict() {
        let tokens = Splits { train: (1..=200).rev().collect(), validation: vec![7], test: Some(Vec::new()) };
        let lengths = Lengths { tokens, max_length: 150 };
        let audit = lengths.audit(Split::Train, false).expect("there are lengths");
        assert_eq!((audit.min, audit.p50, audit.p95, audit.p99, audit.max), (1, 100, 190, 198, 200));
        assert_eq!((audit.longer, audit.longer_share), (50, 0.25));
        assert!((audit.mean - 100.5).abs() < 1e-12);
        let one = lengths.audit(Split::Validation, true).expect("one length");
        assert_eq!((one.min, one.p50, one.p99, one.max, one.longer), (7, 7, 7, 7, 0));
        assert!(one.windowed && !audit.windowed);
        assert_eq!(lengths.audit(Split::Test, false), None);
    }
}
