use kiln_schema::{Split, Splits};
use serde::Serialize;

/// Lengths in tokens, as the tokenizer counted them.
#[derive(Clone, Debug)]
pub struct Lengths {
    /// Of each example as a whole, with special tokens.
    pub tokens: Splits<Vec<usize>>,
    /// What longer examples are cut to, or the length of their windows.
    pub max_length: usize,
}

/// How long the examples of a split are, in tokens with the special ones.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LengthAudit {
    /// The shortest.
    pub min: usize,
    /// The mean.
    pub mean: f64,
    /// Half are at most this long.
    pub p50: usize,
    /// 95 % are at most this long.
    pub p95: usize,
    /// 99 % are at most this long.
    pub p99: usize,
    /// The longest.
    pub max: usize,
    /// What a model reads at once.
    pub max_length: usize,
    /// How many are longer.
    pub longer: usize,
    /// Their share, 0 to 1.
    pub longer_share: f64,
    /// Whether those go through overlapping windows; else they are cut.
    pub windowed: bool,
}

impl Lengths {
    /// None for a split without examples.
    pub(crate) fn audit(&self, split: Split, windowed: bool) -> Option<LengthAudit> {
        let (_, tokens) = self.tokens.iter().find(|(known, _)| *known == split)?;
        let mut sorted = tokens.clone();
        sorted.sort_unstable();
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let rows = sorted.len();
        // Nearest rank: the least length that so many per cent of the examples do not exceed.
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
