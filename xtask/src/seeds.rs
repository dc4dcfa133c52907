//! Scores of one training with several seeds.

/// One score per seed, from 0 to 1.
pub type Seeds = Vec<f64>;

pub fn mean(seeds: &Seeds) -> f64 {
    seeds.iter().sum::<f64>() / seeds.len() as f64
}

/// The lowest and the highest score.
pub fn range(seeds: &Seeds) -> (f64, f64) {
    let extreme = |of: fn(f64, f64) -> f64| seeds.iter().copied().reduce(of).unwrap_or(f64::NAN);
    (extreme(f64::min), extreme(f64::max))
}

/// Formats the mean, lowest and highest score in per cent.
pub fn shown(seeds: &Seeds) -> String {
    let (least, most) = range(seeds);
    format!("{:.1} % ({:.1}–{:.1})", 100.0 * mean(seeds), 100.0 * least, 100.0 * most)
}
