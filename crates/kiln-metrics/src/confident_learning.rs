/// Confident learning: the rows whose label is likely wrong, the least probable label first. C. Northcutt et al., "Confident
/// Learning: Estimating Uncertainty in Dataset Labels", 2021 (arXiv 1911.00068), with pruning by noise rate and ranking by
/// the probability of the given label, like cleanlab 2.9 by default. Ties keep the order of the rows.
///
/// The probabilities must be out of sample: those of a model that was not trained on the row.
///
/// # Shapes
/// - `probabilities`: row-major `[rows, num_labels]`, each row summing to 1
/// - `labels`: `[rows]`, the given labels
///
/// # Panics
/// When there is not one row of probabilities for each label, or a label is not below `num_labels`.
pub fn label_issues(probabilities: &[f64], labels: &[usize], num_labels: usize) -> Vec<usize> {
    assert_eq!(probabilities.len(), labels.len() * num_labels, "each label has a row of {num_labels} probabilities");
    let probability = |row: usize, label: usize| probabilities[row * num_labels + label];
    let to_prune = prune_counts(confident_joint(probabilities, labels, num_labels));
    let mut is_issue = vec![false; labels.len()];
    for (given, to_prune) in to_prune.iter().enumerate() {
        let mut rows: Vec<usize> = (0..labels.len()).filter(|&row| labels[row] == given).collect();
        // The only row of a label is kept.
        if rows.len() < 2 {
            continue;
        }
        for (other, &count) in to_prune.iter().enumerate().filter(|(other, count)| *other != given && **count > 0) {
            let margin = |row: usize| probability(row, other) - probability(row, given);
            rows.sort_by(|&a, &b| margin(b).total_cmp(&margin(a)).then(a.cmp(&b)));
            rows.iter().take(count).for_each(|&row| is_issue[row] = true);
        }
    }
    let is_predicted = |row: usize| {
        let given = probability(row, labels[row]) + TOLERANCE;
        (0..num_labels).all(|label| label == labels[row] || given >= probability(row, label))
    };
    let mut issues: Vec<usize> = (0..labels.len()).filter(|&row| is_issue[row] && !is_predicted(row)).collect();
    issues.sort_by(|&a, &b| probability(a, labels[a]).total_cmp(&probability(b, labels[b])).then(a.cmp(&b)));
    issues
}

/// Probabilities that differ by less count as equal.
const TOLERANCE: f64 = 1e-6;

/// The minimum threshold of a label.
const LOWEST_THRESHOLD: f64 = 2.0 * TOLERANCE;

/// The confident joint: the estimated number of rows with each given label and each true label, scaled so that the sum for
/// each given label is its number of rows. Equations 1 and 3 of the paper.
fn confident_joint(probabilities: &[f64], labels: &[usize], num_labels: usize) -> Vec<Vec<i64>> {
    let thresholds = thresholds(probabilities, labels, num_labels);
    let mut counts = vec![vec![0.0f64; num_labels]; num_labels];
    for (row, &given) in probabilities.chunks(num_labels).zip(labels) {
        let is_confident = |label: &usize| row[*label] >= thresholds[*label] - TOLERANCE;
        let confident: Vec<usize> = (0..num_labels).filter(is_confident).collect();
        match confident[..] {
            [] => {}
            [only] => counts[given][only] += 1.0,
            // As in cleanlab, the most probable of all labels.
            _ => counts[given][most_probable(row)] += 1.0,
        }
    }
    let mut given = vec![0.0; num_labels];
    labels.iter().for_each(|&label| given[label] += 1.0);
    for (label, row) in counts.iter_mut().enumerate() {
        // At least one row of each label counts as correct.
        row[label] = row[label].max(1.0);
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|count| *count = *count / sum * given[label]);
    }
    // The sum of all counts is the number of rows. Like cleanlab, this divides and multiplies by it, because the rounding
    // errors decide between equal remainders.
    let rows = labels.len() as f64;
    let scaled = |row: &Vec<f64>| row.iter().map(|count| count / rows.max(1.0) * rows).collect::<Vec<f64>>();
    counts.iter().map(|row| rounded(&scaled(row))).collect()
}

/// The threshold of each label: its mean probability in the rows with this label. A label without rows has a threshold that
/// no probability reaches.
fn thresholds(probabilities: &[f64], labels: &[usize], num_labels: usize) -> Vec<f64> {
    let mut sums = vec![(0.0, 0usize); num_labels];
    for (row, &given) in probabilities.chunks(num_labels).zip(labels) {
        sums[given].0 += row[given];
        sums[given].1 += 1;
    }
    let mean = |&(sum, count): &(f64, usize)| if count > 0 { sum / count as f64 } else { 2.0 };
    sums.iter().map(|sum| mean(sum).max(LOWEST_THRESHOLD)).collect()
}

/// The number of rows to prune for each given label and each other label. If no row of a given label counts as correct, one
/// is kept, and the counts of the other labels are reduced by equal parts.
fn prune_counts(joint: Vec<Vec<i64>>) -> Vec<Vec<usize>> {
    let pruned = |(label, counts): (usize, Vec<i64>)| {
        let missing = (1 - counts[label]).max(0) as f64;
        let others = counts.iter().filter(|count| **count != 0).count().saturating_sub(1).max(1) as f64;
        counts.iter().map(|&count| (count as f64 - missing / others).max(0.0) as usize).collect()
    };
    joint.into_iter().enumerate().map(pruned).collect()
}

/// Rounds numbers so that their sum is the rounded sum. For this, numbers with the largest remainders are rounded up, or
/// those with the smallest remainders down.
fn rounded(numbers: &[f64]) -> Vec<i64> {
    let mut whole: Vec<i64> = numbers.iter().map(|number| number.round_ties_even() as i64).collect();
    let missing = numbers.iter().sum::<f64>().round_ties_even() as i64 - whole.iter().sum::<i64>();
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    let remainder = |at: usize| numbers[at] - numbers[at].round_ties_even();
    order.sort_by(|&a, &b| remainder(a).total_cmp(&remainder(b)));
    if missing > 0 {
        order.reverse();
    }
    for at in order.into_iter().cycle().take(missing.unsigned_abs() as usize) {
        whole[at] += missing.signum();
    }
    whole
}

/// The index of the largest probability; the first if there are several.
fn most_probable(probabilities: &[f64]) -> usize {
    (0..probabilities.len())
        .fold(0, |best, label| if probabilities[label] > probabilities[best] { label } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64, which is easy to reproduce in Python.
    struct Random(u64);

    impl Random {
        fn unit(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    /// Rows whose real label has a larger probability, by up to `sharpness` before normalization. A share of `noise` of the
    /// rows has a random label.
    struct Noisy {
        seed: u64,
        rows: usize,
        num_labels: usize,
        noise: f64,
        sharpness: f64,
    }

    impl Noisy {
        /// Probabilities and labels; no row has the label `never`.
        fn draw(&self, never: Option<usize>) -> (Vec<f64>, Vec<usize>) {
            let mut random = Random(self.seed);
            let (mut probabilities, mut labels) = (Vec::new(), Vec::new());
            for _ in 0..self.rows {
                let share = random.unit();
                let real = (share * share * self.num_labels as f64) as usize;
                let mut row: Vec<f64> = (0..self.num_labels).map(|_| random.unit()).collect();
                row[real] += self.sharpness * random.unit();
                let sum: f64 = row.iter().sum();
                probabilities.extend(row.iter().map(|number| number / sum));
                let is_noise = random.unit() < self.noise;
                let label = if is_noise { (random.unit() * self.num_labels as f64) as usize } else { real };
                labels.push(if Some(label) == never { 0 } else { label });
            }
            (probabilities, labels)
        }
    }

    /// cleanlab 2.9.0: `find_label_issues(labels, pred_probs, return_indices_ranked_by="self_confidence")` on the same rows.
    /// The expected values are the number of issues, the first eight, and the sum of each row times its position, from 1.
    /// NumPy's `argsort` was set to stable: by default, the order of equal remainders depends on the processor. This affects
    /// only the seeds 5 to 7.
    #[test]
    fn the_issues_and_their_order_are_cleanlab_s() {
        let noisy = |seed, rows, num_labels, noise, sharpness| Noisy { seed, rows, num_labels, noise, sharpness };
        for (noisy, never, count, first, checksum) in [
            (noisy(1, 400, 2, 0.1, 3.0), None, 25, [338, 390, 300, 358, 375, 38, 139, 368], 68913),
            (noisy(2, 600, 5, 0.2, 4.0), None, 106, [599, 428, 350, 292, 295, 516, 545, 125], 1775375),
            (noisy(3, 300, 3, 0.3, 0.5), None, 115, [172, 69, 134, 289, 81, 84, 234, 255], 993607),
            (noisy(4, 200, 4, 0.1, 3.0), Some(2), 10, [173, 76, 172, 56, 170, 163, 62, 93], 5460),
            (noisy(5, 60, 12, 0.2, 2.0), None, 16, [9, 24, 42, 58, 17, 48, 23, 31], 3773),
            (noisy(6, 2000, 7, 0.05, 6.0), None, 85, [1525, 182, 307, 237, 990, 597, 690, 1577], 3571645),
            (noisy(7, 500, 30, 0.3, 8.0), None, 115, [23, 55, 455, 295, 146, 282, 312, 168], 1754830),
            (noisy(8, 3000, 6, 0.3, 2.0), None, 642, [1250, 545, 1493, 2860, 1927, 2382, 594, 119], 317106225),
            (noisy(9, 1500, 9, 0.4, 5.0), None, 477, [1385, 408, 592, 939, 975, 519, 953, 326], 84415915),
            (noisy(10, 5000, 15, 0.2, 6.0), None, 770, [3438, 911, 2641, 2142, 619, 1921, 2801, 1862], 716218355),
        ] {
            let (probabilities, labels) = noisy.draw(never);
            let issues = label_issues(&probabilities, &labels, noisy.num_labels);
            let sum: usize = (1..).zip(&issues).map(|(place, row)| place * row).sum();
            assert_eq!((issues.len(), &issues[..8], sum), (count, &first[..], checksum), "seed {}", noisy.seed);
        }
    }

    #[test]
    fn a_confident_contradiction_is_found_and_agreement_is_not() {
        let mut probabilities = [0.9, 0.1].repeat(10);
        probabilities.extend([0.1, 0.9].repeat(10));
        let mut labels = [[0; 10], [1; 10]].concat();
        assert_eq!(label_issues(&probabilities, &labels, 2), [0; 0]);
        labels[3] = 1;
        assert_eq!(label_issues(&probabilities, &labels, 2), [3]);
        assert_eq!(label_issues(&[], &[], 2), [0; 0]);
        // The only row of a label is kept.
        assert_eq!(label_issues(&[0.9, 0.1, 0.9, 0.1, 0.8, 0.2], &[0, 0, 1], 2), [0; 0]);
    }
}
