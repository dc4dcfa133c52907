/// The area under the ROC curve, 0 to 1: the share of pairs of a positive and a negative row in which the positive row has
/// the higher score. Pairs with equal scores count half. This is scikit-learn's `roc_auc_score`.
///
/// None if it is undefined: if there are no positive or no negative rows, or a score is NaN.
///
/// T. Fawcett, "An introduction to ROC analysis", 2006, section 7.
///
/// # Panics
/// When the lengths of the slices differ.
pub fn roc_auc(scores: &[f64], targets: &[bool]) -> Option<f64> {
    assert_eq!(scores.len(), targets.len(), "each score has a target");
    let positives = targets.iter().filter(|&&target| target).count();
    let negatives = targets.len() - positives;
    if positives == 0 || negatives == 0 || scores.iter().any(|score| score.is_nan()) {
        return None;
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    // Twice the number of pairs won so far, so that halves are integers, and the number of negative rows with a lower score.
    let (mut won_twice, mut lower) = (0u128, 0u128);
    for equal in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let positives = equal.iter().filter(|&&row| targets[row]).count() as u128;
        let negatives = equal.len() as u128 - positives;
        won_twice += positives * (2 * lower + negatives);
        lower += negatives;
    }
    Some(won_twice as f64 / (2.0 * positives as f64 * negatives as f64))
}

/// The mean of [`roc_auc`] over the labels, each against all others: scikit-learn's
/// `roc_auc_score(multi_class="ovr", average="macro")`. With two labels, it is that of the second label, which equals that
/// of the first.
///
/// None if it is undefined for a label, for example because no row has the label.
///
/// # Shapes
/// - `probabilities`: row-major `[rows, num_labels]`
/// - `targets`: `[rows]`
///
/// # Panics
/// When there is not one row of probabilities for each target.
pub fn roc_auc_one_vs_rest(probabilities: &[f64], targets: &[usize], num_labels: usize) -> Option<f64> {
    assert_eq!(probabilities.len(), targets.len() * num_labels, "each target has a row of {num_labels} probabilities");
    // This check is cheap and avoids sorting once per label.
    let mut occurs = vec![false; num_labels];
    targets.iter().for_each(|&target| occurs[target] = true);
    if num_labels < 2 || occurs.contains(&false) {
        return None;
    }
    let of_label = |label: usize| {
        let scores: Vec<f64> = probabilities.iter().skip(label).step_by(num_labels).copied().collect();
        let is_label: Vec<bool> = targets.iter().map(|&target| target == label).collect();
        roc_auc(&scores, &is_label)
    };
    if num_labels == 2 {
        return of_label(1);
    }
    let sum: f64 = (0..num_labels).map(of_label).sum::<Option<f64>>()?;
    Some(sum / num_labels as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_by_hand() {
        // 0.8 beats both, 0.4 beats 0.1 and ties with 0.4: 3.5 of 4 pairs.
        let area = roc_auc(&[0.8, 0.4, 0.4, 0.1], &[true, true, false, false]);
        assert_eq!(area, Some(3.5 / 4.0));
        assert_eq!(roc_auc(&[0.0, -0.0], &[true, false]), Some(0.5), "zeros of both signs are equal");
        assert_eq!(roc_auc(&[1.0; 4], &[true, false, false, true]), Some(0.5));
    }

    #[test]
    fn what_is_undefined_is_none() {
        assert_eq!(roc_auc(&[], &[]), None);
        assert_eq!(roc_auc(&[0.1, 0.2], &[true, true]), None);
        assert_eq!(roc_auc(&[0.1, 0.2], &[false, false]), None);
        assert_eq!(roc_auc(&[0.1, f64::NAN], &[false, true]), None);
        assert_eq!(roc_auc_one_vs_rest(&[], &[], 3), None);
        assert_eq!(roc_auc_one_vs_rest(&[1.0, 1.0], &[0, 0], 1), None);
        assert_eq!(roc_auc_one_vs_rest(&[0.5, 0.3, 0.2, 0.1, 0.8, 0.1], &[0, 1], 3), None, "label 2 has no row");
    }
}
