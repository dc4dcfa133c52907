use kiln_metrics::{
    AnswerLanguage, ConfusionMatrix, argmax, confidence_bins, cross_entropy, expected_calibration_error,
    mean_squared_error, multi_label_roc_auc, multi_label_scores, pearson, roc_auc_one_vs_rest, softmax, spearman,
    wilson_interval,
};
use kiln_schema::{LabelId, LabelSet};

use crate::error::{check_loss, check_outputs};
use crate::{
    AnswerScores, Confusions, Error, LabelReport, LabelScores, LabelSetScores, MaskedScores, NumberScores, Reliability,
    Scores, SplitReport, ThresholdScores,
};

/// 95 % of a normal distribution lie within this many standard deviations of the mean.
const Z_95: f64 = 1.959_963_984_540_054;

/// Scores single-label predictions. Time and memory grow with the logits, not with the square of the number of labels.
///
/// # Shapes
/// - `logits`: row-major `[examples, labels]`
/// - `targets`: `[examples]`
///
/// # Errors
/// When a logit is NaN or infinite.
///
/// # Panics
/// When the lengths do not fit.
pub fn evaluate(logits: &[f32], targets: &[LabelId], labels: &LabelSet) -> Result<SplitReport, Error> {
    let num_labels = labels.len();
    assert_eq!(logits.len(), targets.len() * num_labels, "a row of logits for each target");
    check_outputs(logits, num_labels)?;
    let predictions: Vec<LabelId> = logits.chunks(num_labels).map(argmax).collect();
    let correct: Vec<bool> = predictions.iter().zip(targets).map(|(prediction, target)| prediction == target).collect();
    let probabilities: Vec<f64> = logits.chunks(num_labels).flat_map(softmax).collect();
    let confidences: Vec<f64> = probabilities
        .chunks(num_labels)
        .zip(&predictions)
        .map(|(probabilities, &prediction)| probabilities[prediction])
        .collect();
    let matrix = ConfusionMatrix::new(&predictions, targets, num_labels);
    let correct_rows = correct.iter().filter(|&&correct| correct).count();
    let (low, high) = wilson_interval(correct_rows, targets.len(), Z_95);
    let bins = confidence_bins(&confidences, &correct, 10);
    let scores = LabelScores {
        accuracy: matrix.accuracy(),
        accuracy_interval: [low, high],
        macro_f1: matrix.macro_f1(),
        macro_precision: matrix.macro_precision(),
        macro_recall: matrix.macro_recall(),
        roc_auc: roc_auc_one_vs_rest(&probabilities, targets, num_labels),
        mcc: matrix.matthews_correlation(),
        calibration_error: expected_calibration_error(&bins),
        reliability: bins.into_iter().map(Reliability::from).collect(),
        labels: label_reports(&matrix, labels),
        confusions: Confusions::new(&matrix, labels),
    };
    let loss = cross_entropy(logits, num_labels, targets);
    Ok(SplitReport::new(loss, targets.len(), Scores::Labels(scores)))
}

/// The scores of each label, in the order of the logits.
pub(crate) fn label_reports(matrix: &ConfusionMatrix, labels: &LabelSet) -> Vec<LabelReport> {
    let report = |(scores, label): (kiln_metrics::ClassScores, &String)| LabelReport {
        label: label.clone(),
        precision: scores.precision,
        recall: scores.recall,
        f1: scores.f1,
        support: scores.support,
    };
    matrix.per_class().into_iter().zip(labels.names()).map(report).collect()
}

/// Scores multi-label predictions. A label is predicted when the sigmoid of its logit is at least 0.5.
///
/// # Shapes
/// - `logits`: row-major `[examples, labels]`
/// - `targets`: the labels of each example
///
/// # Errors
/// When a logit is NaN or infinite.
///
/// # Panics
/// When the lengths do not fit.
pub fn evaluate_sets(logits: &[f32], targets: &[Vec<LabelId>], labels: &LabelSet) -> Result<SplitReport, Error> {
    let num_labels = labels.len();
    assert_eq!(logits.len(), targets.len() * num_labels, "a row of logits for each target");
    check_outputs(logits, num_labels)?;
    let real = as_flags(targets, num_labels);
    // −log σ(±x), computed as max(∓x, 0) + log(1 + exp(−|x|)) so that it cannot overflow.
    let losses = logits.iter().zip(&real).map(|(&x, &real)| {
        let against = f64::from(if real { -x } else { x });
        against.max(0.0) + (-against.abs()).exp().ln_1p()
    });
    let loss = losses.sum::<f64>() / real.len().max(1) as f64;
    let probabilities: Vec<f64> = logits.iter().map(|&logit| 1.0 / (1.0 + f64::from(-logit).exp())).collect();
    let roc_auc = multi_label_roc_auc(&probabilities, &real, num_labels);
    let scores = LabelSetScores { roc_auc, ..set_scores(logits, &real, labels) };
    Ok(SplitReport::new(loss, targets.len(), Scores::LabelSets(scores)))
}

/// [`evaluate_sets`] with a threshold for each label. The report also has the scores at a threshold of 0.5.
///
/// # Shapes
/// - `logits`, `above`: row-major `[examples, labels]`; a label is predicted when its number in `above` is at least 0
/// - `targets`: the labels of each example
/// - `thresholds`: `[labels]`, probabilities
///
/// # Errors
/// When a logit is NaN or infinite.
///
/// # Panics
/// When the lengths do not fit.
pub fn evaluate_sets_at(
    (logits, above): (&[f32], &[f32]),
    targets: &[Vec<LabelId>],
    labels: &LabelSet,
    thresholds: &[f64],
) -> Result<SplitReport, Error> {
    assert_eq!(thresholds.len(), labels.len(), "a threshold for each label");
    let report = evaluate_sets(logits, targets, labels)?;
    let Scores::LabelSets(at_half) = report.scores else { unreachable!("the scores are of sets of labels") };
    let LabelSetScores { accuracy, micro_f1, macro_f1, roc_auc, .. } = at_half;
    let thresholds = ThresholdScores { thresholds: thresholds.to_vec(), accuracy, micro_f1, macro_f1 };
    let scores = set_scores(above, &as_flags(targets, labels.len()), labels);
    let scores = LabelSetScores { roc_auc, at_half: Some(thresholds), ..scores };
    Ok(SplitReport { scores: Scores::LabelSets(scores), ..report })
}

/// Whether each row has each label, row-major `[rows, num_labels]`.
fn as_flags(targets: &[Vec<LabelId>], num_labels: usize) -> Vec<bool> {
    let mut flags = vec![false; targets.len() * num_labels];
    for (row, target) in targets.iter().enumerate() {
        target.iter().for_each(|label| flags[row * num_labels + label] = true);
    }
    flags
}

/// The scores that need only the predictions. A label is predicted when its logit is at least 0.
fn set_scores(logits: &[f32], real: &[bool], labels: &LabelSet) -> LabelSetScores {
    let predicted: Vec<bool> = logits.iter().map(|logit| *logit >= 0.0).collect();
    let scores = multi_label_scores(&predicted, real, labels.len());
    let reports = scores.labels.iter().zip(labels.names()).map(|(scores, name)| LabelReport::new(name, *scores));
    LabelSetScores {
        accuracy: scores.subset_accuracy,
        micro_f1: scores.micro.f1,
        micro_precision: scores.micro.precision,
        micro_recall: scores.micro.recall,
        macro_f1: scores.macro_f1,
        roc_auc: None,
        at_half: None,
        labels: reports.collect(),
    }
}

/// Scores predicted numbers, of a regression.
///
/// # Shapes
/// - `predictions`, `targets`: `[examples]`
///
/// # Errors
/// When a prediction is NaN or infinite.
pub fn evaluate_numbers(predictions: &[f32], targets: &[f64]) -> Result<SplitReport, Error> {
    check_outputs(predictions, 1)?;
    let predictions: Vec<f64> = predictions.iter().copied().map(f64::from).collect();
    let loss = mean_squared_error(&predictions, targets);
    let scores = NumberScores {
        pearson: pearson(&predictions, targets),
        spearman: spearman(&predictions, targets),
        mean_squared_error: loss,
    };
    Ok(SplitReport::new(loss, targets.len(), Scores::Numbers(scores)))
}

/// The report of question answering, from the exact match and the F1 of each question.
///
/// # Errors
/// When the loss is NaN or infinite. It is if a logit is.
pub fn evaluate_answers(loss: f64, each: &[(f64, f64)], language: AnswerLanguage) -> Result<SplitReport, Error> {
    check_loss(loss)?;
    let mean = |score: fn(&(f64, f64)) -> f64| each.iter().map(score).sum::<f64>() / each.len().max(1) as f64;
    let scores =
        AnswerScores { exact_match: mean(|scores| scores.0), f1: mean(|scores| scores.1), answer_language: language };
    Ok(SplitReport::new(loss, each.len(), Scores::Answers(scores)))
}

/// Counts of predictions of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Number of correct predictions.
    pub correct: usize,
    /// Number of predictions.
    pub total: usize,
    /// Sum of the cross-entropies.
    pub loss_sum: f64,
}

/// The report of masked-token predictions and, if there are any, of next-sentence predictions. The loss is the sum of the
/// mean losses of both.
///
/// # Errors
/// When the loss is NaN or infinite. It is if a logit is.
pub fn evaluate_masked(masked: Counts, next: Option<Counts>, examples: usize) -> Result<SplitReport, Error> {
    let mean = |sum: f64, count: usize| sum / count.max(1) as f64;
    let masked_loss = mean(masked.loss_sum, masked.total);
    let loss = masked_loss + next.map_or(0.0, |next| mean(next.loss_sum, next.total));
    check_loss(loss)?;
    let scores = MaskedScores {
        masked_accuracy: mean(masked.correct as f64, masked.total),
        masked_loss,
        perplexity: masked_loss.exp(),
        masked: masked.total,
        next_sentence_accuracy: next.map(|next| mean(next.correct as f64, next.total)),
    };
    Ok(SplitReport::new(loss, examples, Scores::Masked(scores)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The predictions are 0, 0, 1, 1 and the targets 0, 1, 1, 1.
    #[test]
    fn a_split_by_hand() {
        let labels = LabelSet::new(["a", "b"]).expect("two names");
        let logits = [2.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 3.0];
        let report = evaluate(&logits, &[0, 1, 1, 1], &labels).expect("the logits are finite");
        assert_eq!((report.examples, report.score("accuracy")), (4, Some(0.75)));
        let [a, b] = report.labels() else { panic!("two labels") };
        assert_eq!((a.precision, a.recall, a.support), (0.5, 1.0, 1));
        assert_eq!((b.precision, b.recall, b.support), (1.0, 2.0 / 3.0, 3));
        assert!((report.score("macro_f1").expect("labels have it") - (2.0 / 3.0 + 0.8) / 2.0).abs() < 1e-12);
        // −ln σ(d), where d = 2, −1, 1, 3 is the right logit minus the other.
        let loss = [2.0f64, -1.0, 1.0, 3.0].map(|d| (1.0 + (-d).exp()).ln()).iter().sum::<f64>() / 4.0;
        assert!((report.loss - loss).abs() < 1e-9);
        let Scores::Labels(scores) = report.scores else { panic!("labels") };
        let [low, high] = scores.accuracy_interval;
        assert!(0.0 < low && low < 0.75 && 0.75 < high && high < 1.0);
        // All three rows of b have a higher probability of b than the row of a. The MCC is (2 · 1) / √(4 · 3) = 1 / √3.
        assert_eq!(scores.roc_auc, Some(1.0));
        assert!((scores.mcc - 1.0 / 3f64.sqrt()).abs() < 1e-12, "{}", scores.mcc);
    }

    #[test]
    fn json_of_small_label_sets_has_the_matrix() {
        let labels = LabelSet::new(["a", "b"]).expect("two names");
        let report = evaluate(&[1.0, 0.0, 1.0, 0.0], &[0, 0], &labels).expect("the logits are finite");
        let json = serde_json::to_value(&report).expect("it is JSON");
        assert_eq!(json["confusion_matrix"], serde_json::json!([[2, 0], [0, 0]]));
        assert!(json.get("roc_auc").is_none() && json["mcc"] == 0.0 && json.get("largest_confusions").is_none());
    }

    #[test]
    fn json_of_many_labels_grows_with_the_labels() {
        let size = |num_labels: usize| {
            let labels = LabelSet::new((0..num_labels).map(|id| format!("label {id}"))).expect("distinct names");
            let mut logits = vec![0.0; 3 * num_labels];
            logits[7] = 1.0;
            let report = evaluate(&logits, &[1, 0, 0], &labels).expect("the logits are finite");
            let json = serde_json::to_value(&report).expect("it is JSON");
            let confusion = serde_json::json!([{ "target": "label 1", "prediction": "label 7", "count": 1 }]);
            assert_eq!(json["largest_confusions"], confusion);
            json.to_string().len()
        };
        assert!(size(4_000) < 5 * size(1_000), "{}", size(4_000));
    }

    #[test]
    fn other_tasks_by_hand() {
        let labels = LabelSet::new(["a", "b"]).expect("two names");
        let sets = evaluate_sets(&[1.0, -1.0, 1.0, 1.0], &[vec![0], vec![1]], &labels).expect("finite");
        assert_eq!((sets.score("accuracy"), sets.score("micro_f1")), (Some(0.5), Some(0.8)));
        let loss = [1.0f64, 1.0, -1.0, 1.0].map(|x| (-x).exp().ln_1p()).iter().sum::<f64>() / 4.0;
        assert!((sets.loss - loss).abs() < 1e-9);
        let Scores::LabelSets(scores) = &sets.scores else { panic!("sets of labels") };
        assert_eq!(scores.roc_auc, Some(0.75), "the first label's rows are equal, the second's in order");
        // The first label's threshold is above its logits, so it is predicted for neither row.
        let above = [-0.5, -1.0, -0.5, 1.0];
        let own = evaluate_sets_at((&[1.0, -1.0, 1.0, 1.0], &above), &[vec![0], vec![1]], &labels, &[0.8, 0.5]);
        let own = own.expect("finite");
        assert_eq!((own.loss, own.score("accuracy"), own.score("micro_f1")), (sets.loss, Some(0.5), Some(2.0 / 3.0)));
        let json = serde_json::to_value(&own).expect("it is JSON");
        assert_eq!((&json["at_half"]["micro_f1"], &json["at_half"]["thresholds"][0]), (&0.8.into(), &0.8.into()));
        assert_eq!(json["roc_auc"], 0.75);
        let numbers = evaluate_numbers(&[1.0, 2.0], &[2.0, 4.0]).expect("finite");
        assert_eq!((numbers.loss, numbers.score("accuracy")), (2.5, None));
        assert!((numbers.score("pearson").expect("numbers have it") - 1.0).abs() < 1e-12);
        let answers = evaluate_answers(0.5, &[(1.0, 1.0), (0.0, 0.5)], AnswerLanguage::Chinese).expect("finite");
        assert_eq!((answers.score("exact_match"), answers.score("f1")), (Some(0.5), Some(0.75)));
        let json = serde_json::to_value(&answers).expect("it is JSON");
        assert_eq!(json["answer_language"], "chinese");
    }

    #[test]
    fn what_is_no_number_is_an_error() {
        let labels = LabelSet::new(["a", "b"]).expect("two names");
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let logits = [1.0, 0.0, 0.0, bad];
            let message = evaluate(&logits, &[0, 1], &labels).expect_err("no number").to_string();
            assert!(message.contains("row 2") && message.contains(&bad.to_string()), "{message}");
            assert!(evaluate_sets(&logits, &[vec![0], vec![]], &labels).is_err());
            assert!(evaluate_numbers(&[bad], &[0.0]).is_err());
            assert!(evaluate_answers(f64::from(bad), &[], AnswerLanguage::English).is_err());
            let counts = Counts { correct: 0, total: 1, loss_sum: f64::from(bad) };
            assert!(evaluate_masked(counts, None, 1).is_err());
        }
    }

    #[test]
    fn no_rows_and_one_label_are_no_panic() {
        let one = LabelSet::new(["a"]).expect("a name");
        for report in [
            evaluate(&[], &[], &one),
            evaluate(&[0.5, 1.0], &[0, 0], &one),
            evaluate_sets(&[], &[], &one),
            evaluate_numbers(&[], &[]),
            evaluate_answers(0.0, &[], AnswerLanguage::English),
            evaluate_masked(Counts::default(), Some(Counts::default()), 0),
        ] {
            let json = serde_json::to_string(&report.expect("finite")).expect("it is JSON");
            assert!(!json.contains("null"), "{json}");
        }
    }
}
