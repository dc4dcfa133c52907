/// The mean of the squared differences; 0 if there are no values.
pub fn mean_squared_error(predictions: &[f64], targets: &[f64]) -> f64 {
    let sum: f64 = predictions.iter().zip(targets).map(|(x, y)| (x - y).powi(2)).sum();
    sum / predictions.len().max(1) as f64
}

/// Pearson's correlation, −1 to 1; 0 if either side is constant.
pub fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let count = x.len() as f64;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(x), mean(y));
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        let (x, y) = (x - mean_x, y - mean_y);
        xy += x * y;
        xx += x * x;
        yy += y * y;
    }
    if xx > 0.0 && yy > 0.0 { (xy / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0) } else { 0.0 }
}

/// Spearman's correlation: Pearson's correlation of the ranks. Equal values have the mean of their ranks.
pub fn spearman(x: &[f64], y: &[f64]) -> f64 {
    pearson(&ranks(x), &ranks(y))
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        for &at in equal {
            ranks[at] = before as f64 + (equal.len() as f64 - 1.0) / 2.0;
        }
        before += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlations_by_hand() {
        // Deviations (−1.5, −0.5, 0.5, 1.5) and (−2, 0, −1, 3): 3 + 0 − 0.5 + 4.5 = 7 over √(5 · 14).
        let (x, y) = ([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 6.0]);
        assert!((pearson(&x, &y) - 7.0 / 70f64.sqrt()).abs() < 1e-12);
        // Ranks 0 1 2 3 and 0 2 1 3: deviations give (2.25 + (−0.25) + (−0.25) + 2.25) / 5.
        assert!((spearman(&x, &y) - 0.8).abs() < 1e-12);
        // Ranks 0.5 0.5 2 and 0 1 2: 1.5 over √(1.5 · 2).
        assert!((spearman(&[7.0, 7.0, 9.0], &[1.0, 2.0, 3.0]) - 1.5 / 3f64.sqrt()).abs() < 1e-12);
        assert_eq!((pearson(&[1.0, 1.0], &[0.0, 5.0]), pearson(&[], &[])), (0.0, 0.0));
        assert_eq!(mean_squared_error(&[1.0, 2.0], &[0.0, 4.0]), 2.5);
    }
}
