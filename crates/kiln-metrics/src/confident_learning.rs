/// The rows whose label is likely wrong, the least probable label first: confident learning. C. Northcutt et al., "Confident
/// Learning: Estimating Uncertainty in Dataset Labels", 2021 (arXiv 1911.00068), pruned by noise rate and ranked by the
/// probability of the given label, as cleanlab 2.9 does by default. Equal numbers keep the order of the rows.
///
/// The probabilities have to be out of sample: those of a model that was not trained on the row.
///
/// # Shapes
/// - `probabilities`: row-major `[rows, num_labels]`, each row summing to 1
/// - `labels`: `[rows]`, the labels as they are given
///
/// # Panics
/// When there is not a row of probabilities for each label, or a label is not below `num_labels`.
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

/// The threshold of a label is at least this.
const LOWEST_THRESHOLD: f64 = 2.0 * TOLERANCE;

/// How many rows with the first label really have the second, scaled so that the rows of each given label are all counted.
/// Equations 1 and 3 of the paper.
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
        // One right row at the least.
        row[label] = row[label].max(1.0);
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|count| *count = *count / sum * given[label]);
    }
    // The sum of all is the number of rows. cleanlab divides by it and multiplies by it again, and what that rounds off decides
    // between equal remainders.
    let rows = labels.len() as f64;
    let scaled = |row: &Vec<f64>| row.iter().map(|count| count / rows.max(1.0) * rows).collect::<Vec<f64>>();
    counts.iter().map(|row| rounded(&scaled(row))).collect()
}

/// Of each label, the mean probability of the rows that have it; one that no probability reaches where there are none.
fn thresholds(probabilities: &[f64], labels: &[usize], num_labels: usize) -> Vec<f64> {
    let mut sums = vec![(0.0, 0usize); num_labels];
    for (row, &given) in probabilities.chunks(num_labels).zip(labels) {
        sums[given].0 += row[given];
        sums[given].1 += 1;
    }
    let mean = |&(sum, count): &(f64, usize)| if count > 0 { sum / count as f64 } else { 2.0 };
    sums.iter().map(|sum| mean(sum).max(LOWEST_THRESHOLD)).collect()
}

/// Of each given label, how many rows to take for each of the others. A label of which no row is counted as right keeps one,
/// at the cost of the others in equal parts.
fn prune_counts(joint: Vec<Vec<i64>>) -> Vec<Vec<usize>> {
    let pruned = |(label, counts): (usize, Vec<i64>)| {
        let missing = (1 - counts[label]).max(0) as f64;
        let others = counts.iter().filter(|count| **count != 0).count().saturating_sub(1).max(1) as f64;
        counts.iter().map(|&count| (count as f64 - missing / others).max(0.0) as usize).collect()
    };
    joint.into_iter().enumerate().map(pruned).collect()
}

/// Whole numbers with the rounded sum of the given ones: those with the largest remainders are rounded up, or those with the
/// smallest down.
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

/// The first of the largest.
fn most_probable(probabilities: &[f64]) -> usize {
    (0..probabilities.len())
        .fold(0, |best, label| if probabilities[label] > probabilities[best] { label } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of SplitMix64, which Python makes as easily.
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

    /// Rows whose probabilities are larger at their real label, by up to `sharpness`, and of which a share has another label.
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

    /// cleanlab 2.9.0: `find_label_issues(labels, pred_probs, return_indices_ranked_by="self_confidence")` on the same rows: how
    /// many there are, the first eight, and the sum of each row times its place, from 1. NumPy's `argsort` was told to be stable:
    /// by default it leaves equal remainders in an order of the processor's, which decides the seeds 5 to 7 and no other.
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
        // The only row of a label stays.
        assert_eq!(label_issues(&[0.9, 0.1, 0.9, 0.1, 0.8, 0.2], &[0, 0, 1], 2), [0; 0]);
    }
}
