use std::ops::Range;

use kiln_metrics::{
    ConfusionMatrix, Entity, EntityScores, argmax, cross_entropy, entities, entity_scores, expected_calibration_error,
    mean_squared_error, multi_label_scores, pearson, softmax, spearman, wilson_interval, word_scores, words,
};
use kiln_schema::{LabelId, LabelSet};
use serde::Serialize;

/// How a model does on one split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitReport {
    /// What training makes small, its mean.
    pub loss: f64,
    /// Rows.
    pub examples: usize,
    /// What the task is judged by.
    #[serde(flatten)]
    pub scores: Scores,
}

/// What a task is judged by.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Scores {
    /// Of one label a row.
    Labels(LabelScores),
    /// Of several labels a row.
    LabelSets(LabelSetScores),
    /// Of a number a row.
    Numbers(NumberScores),
    /// Of a tag a unit.
    Tags(TagScores),
    /// Of passages.
    Answers(AnswerScores),
    /// Of masked tokens.
    Masked(MaskedScores),
}

impl SplitReport {
    /// The numbers that stand for the whole, by the names that reports and recipes have for them.
    pub fn named(&self) -> Vec<(&'static str, f64)> {
        let mut named = vec![("loss", self.loss)];
        named.extend(match &self.scores {
            Scores::Labels(scores) => vec![("accuracy", scores.accuracy), ("macro_f1", scores.macro_f1)],
            Scores::LabelSets(scores) => {
                vec![("accuracy", scores.accuracy), ("macro_f1", scores.macro_f1), ("micro_f1", scores.micro_f1)]
            }
            Scores::Numbers(scores) => vec![("pearson", scores.pearson), ("spearman", scores.spearman)],
            Scores::Tags(scores) => vec![
                ("accuracy", scores.accuracy),
                ("macro_f1", scores.macro_f1),
                ("entity_precision", scores.entity_precision),
                ("entity_recall", scores.entity_recall),
                ("entity_f1", scores.entity_f1),
            ],
            Scores::Answers(scores) => vec![("exact_match", scores.exact_match), ("f1", scores.f1)],
            Scores::Masked(scores) => {
                let next = scores.next_sentence_accuracy.map(|accuracy| ("next_sentence_accuracy", accuracy));
                let masked = [("masked_accuracy", scores.masked_accuracy), ("perplexity", scores.perplexity)];
                masked.into_iter().chain(next).collect()
            }
        });
        named
    }

    /// The number of that name, if the task has it.
    pub fn score(&self, name: &str) -> Option<f64> {
        self.named().into_iter().find(|(known, _)| *known == name).map(|(_, score)| score)
    }

    /// How it does on each label, where there are labels.
    pub fn labels(&self) -> &[LabelReport] {
        match &self.scores {
            Scores::Labels(scores) => &scores.labels,
            Scores::LabelSets(scores) => &scores.labels,
            Scores::Tags(scores) => &scores.labels,
            Scores::Numbers(_) | Scores::Answers(_) | Scores::Masked(_) => &[],
        }
    }
}

/// How well one label a row is told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelScores {
    /// Share of right answers.
    pub accuracy: f64,
    /// 95 % interval of the accuracy over samples of this size (Wilson).
    pub accuracy_interval: [f64; 2],
    /// Mean over labels of F1.
    pub macro_f1: f64,
    /// Mean over labels of precision.
    pub macro_precision: f64,
    /// Mean over labels of recall.
    pub macro_recall: f64,
    /// How far confidence is from accuracy, weighted over ten bins of confidence.
    pub calibration_error: f64,
    /// In the order of the logits.
    pub labels: Vec<LabelReport>,
    /// Rows are targets, columns predictions, both in the order of the logits.
    pub confusion_matrix: ConfusionMatrix,
}

/// How well several labels a row are told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelSetScores {
    /// Share of rows of which every label is right.
    pub accuracy: f64,
    /// F1 over all pairs of row and label.
    pub micro_f1: f64,
    /// Precision over them.
    pub micro_precision: f64,
    /// Recall over them.
    pub micro_recall: f64,
    /// Mean over labels of F1.
    pub macro_f1: f64,
    /// In the order of the logits.
    pub labels: Vec<LabelReport>,
}

/// How well numbers are told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NumberScores {
    /// Pearson's correlation.
    pub pearson: f64,
    /// Spearman's correlation.
    pub spearman: f64,
    /// Mean of the squared errors.
    pub mean_squared_error: f64,
}

/// How well tags are told, and the entities or words that they spell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TagScores {
    /// Share of units with the right tag.
    pub accuracy: f64,
    /// Mean over tags of F1.
    pub macro_f1: f64,
    /// Of the entities found, the share that is right, as seqeval counts; of words where the tags have no labels, as SIGHAN
    /// counts.
    pub entity_precision: f64,
    /// Of the true ones, the share that was found.
    pub entity_recall: f64,
    /// Harmonic mean of both.
    pub entity_f1: f64,
    /// Units.
    pub units: usize,
    /// Of each label of entities, in alphabetical order.
    pub labels: Vec<LabelReport>,
}

/// How well passages are told: both 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnswerScores {
    /// Share of answers that are a true one.
    pub exact_match: f64,
    /// Mean F1 with the nearest true one.
    pub f1: f64,
}

/// How well masked tokens are told, and whether one sentence follows another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MaskedScores {
    /// Share of the masked tokens that were told.
    pub masked_accuracy: f64,
    /// Their mean cross-entropy.
    pub masked_loss: f64,
    /// `exp(masked_loss)`: of how many equally likely tokens the model would have to choose.
    pub perplexity: f64,
    /// Masked tokens.
    pub masked: usize,
    /// Share of the rows of which it was told whether the second segment follows the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_sentence_accuracy: Option<f64>,
}

/// How a classifier does on one label.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelReport {
    /// Its name.
    pub label: String,
    /// Of the rows so predicted, the share that are.
    pub precision: f64,
    /// Of the rows that are, the share so predicted.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
    /// Rows that are.
    pub support: u64,
}

/// 95 % of a normal distribution lie within this many standard deviations.
const Z_95: f64 = 1.959_963_984_540_054;

/// # Shapes
/// - `logits`: row-major `[examples, labels]`
/// - `targets`: `[examples]`
///
/// # Panics
/// When the lengths do not fit.
pub fn evaluate(logits: &[f32], targets: &[LabelId], labels: &LabelSet) -> SplitReport {
    let num_labels = labels.len();
    assert_eq!(logits.len(), targets.len() * num_labels, "a row of logits for each target");
    let predictions: Vec<LabelId> = logits.chunks(num_labels).map(argmax).collect();
    let correct: Vec<bool> = predictions.iter().zip(targets).map(|(prediction, target)| prediction == target).collect();
    let confidences: Vec<f64> =
        logits.chunks(num_labels).zip(&predictions).map(|(row, &prediction)| softmax(row)[prediction]).collect();
    let confusion_matrix = ConfusionMatrix::new(&predictions, targets, num_labels);
    let right = correct.iter().filter(|&&correct| correct).count();
    let (low, high) = wilson_interval(right, targets.len(), Z_95);
    let labels = confusion_matrix.per_class().into_iter().zip(labels.names()).map(|(scores, name)| LabelReport {
        label: name.clone(),
        precision: scores.precision,
        recall: scores.recall,
        f1: scores.f1,
        support: scores.support,
    });
    let scores = LabelScores {
        accuracy: confusion_matrix.accuracy(),
        accuracy_interval: [low, high],
        macro_f1: confusion_matrix.macro_f1(),
        macro_precision: confusion_matrix.macro_precision(),
        macro_recall: confusion_matrix.macro_recall(),
        calibration_error: expected_calibration_error(&confidences, &correct, 10),
        labels: labels.collect(),
        confusion_matrix,
    };
    let loss = cross_entropy(logits, num_labels, targets);
    SplitReport { loss, examples: targets.len(), scores: Scores::Labels(scores) }
}

/// A label is said where its probability, a sigmoid's, is at least a half.
///
/// # Shapes
/// - `logits`: row-major `[examples, labels]`
/// - `targets`: the labels of each example
///
/// # Panics
/// When the lengths do not fit.
pub fn evaluate_sets(logits: &[f32], targets: &[Vec<LabelId>], labels: &LabelSet) -> SplitReport {
    let num_labels = labels.len();
    assert_eq!(logits.len(), targets.len() * num_labels, "a row of logits for each target");
    let said: Vec<bool> = logits.iter().map(|logit| *logit >= 0.0).collect();
    let real: Vec<bool> =
        targets.iter().flat_map(|target| (0..num_labels).map(|label| target.contains(&label))).collect();
    // −log σ(±x), as log(1 + exp(−|x|)) and what is above zero.
    let losses = logits.iter().zip(&real).map(|(&x, &real)| {
        let against = f64::from(if real { -x } else { x });
        against.max(0.0) + (-against.abs()).exp().ln_1p()
    });
    let loss = losses.sum::<f64>() / real.len().max(1) as f64;
    let found = multi_label_scores(&said, &real, num_labels);
    let labels = found.labels.iter().zip(labels.names()).map(|(scores, name)| LabelReport::new(name, *scores));
    let scores = LabelSetScores {
        accuracy: found.subset_accuracy,
        micro_f1: found.micro.f1,
        micro_precision: found.micro.precision,
        micro_recall: found.micro.recall,
        macro_f1: found.macro_f1,
        labels: labels.collect(),
    };
    SplitReport { loss, examples: targets.len(), scores: Scores::LabelSets(scores) }
}

/// # Shapes
/// - `predictions`, `targets`: `[examples]`
pub fn evaluate_numbers(predictions: &[f32], targets: &[f64]) -> SplitReport {
    let predictions: Vec<f64> = predictions.iter().copied().map(f64::from).collect();
    let loss = mean_squared_error(&predictions, targets);
    let scores = NumberScores {
        pearson: pearson(&predictions, targets),
        spearman: spearman(&predictions, targets),
        mean_squared_error: loss,
    };
    SplitReport { loss, examples: targets.len(), scores: Scores::Numbers(scores) }
}

/// # Shapes
/// - `predictions`, `targets`: a tag for each unit of each text
///
/// # Panics
/// When the lengths do not fit.
pub fn evaluate_tags(
    loss: f64,
    predictions: &[Vec<LabelId>],
    targets: &[Vec<LabelId>],
    labels: &LabelSet,
) -> SplitReport {
    let (said, real) = (predictions.concat(), targets.concat());
    assert_eq!(said.len(), real.len(), "a prediction for each unit");
    let matrix = ConfusionMatrix::new(&said, &real, labels.len());
    let all = |texts: &[Vec<LabelId>]| -> Vec<Vec<&str>> {
        texts.iter().map(|tags| tags.iter().map(|tag| labels.name(*tag)).collect()).collect()
    };
    let (said, real) = (all(predictions), all(targets));
    let segmentation = !labels.names().iter().any(|name| name.contains('-'));
    let (found, by_label) = if segmentation {
        let all = |texts: &[Vec<&str>]| -> Vec<Vec<Range<usize>>> { texts.iter().map(|tags| words(tags)).collect() };
        (word_scores(&all(&real), &all(&said)), Default::default())
    } else {
        let all = |texts: &[Vec<&str>]| -> Vec<Vec<Entity>> { texts.iter().map(|tags| entities(tags)).collect() };
        entity_scores(&all(&real), &all(&said))
    };
    let scores = TagScores {
        accuracy: matrix.accuracy(),
        macro_f1: matrix.macro_f1(),
        entity_precision: found.precision,
        entity_recall: found.recall,
        entity_f1: found.f1,
        units: real.iter().map(Vec::len).sum(),
        labels: by_label.iter().map(|(name, scores)| LabelReport::new(name, *scores)).collect(),
    };
    SplitReport { loss, examples: targets.len(), scores: Scores::Tags(scores) }
}

/// From exact match and F1 of each question.
pub fn evaluate_answers(loss: f64, each: &[(f64, f64)]) -> SplitReport {
    let mean = |of: fn(&(f64, f64)) -> f64| each.iter().map(of).sum::<f64>() / each.len().max(1) as f64;
    let scores = AnswerScores { exact_match: mean(|scores| scores.0), f1: mean(|scores| scores.1) };
    SplitReport { loss, examples: each.len(), scores: Scores::Answers(scores) }
}

impl LabelReport {
    fn new(label: &str, EntityScores { precision, recall, f1, support }: EntityScores) -> Self {
        Self { label: label.to_owned(), precision, recall, f1, support: support as u64 }
    }
}

/// Of masked tokens and of next sentences: how many were told, of how many, and their cross-entropy, summed. The loss is the
/// mean of the one and the mean of the other.
pub fn evaluate_masked(
    (right, masked, loss_sum): (usize, usize, f64),
    next: Option<(usize, f64)>,
    examples: usize,
) -> SplitReport {
    let mean = |sum: f64, count: usize| sum / count.max(1) as f64;
    let masked_loss = mean(loss_sum, masked);
    let scores = MaskedScores {
        masked_accuracy: mean(right as f64, masked),
        masked_loss,
        perplexity: masked_loss.exp(),
        masked,
        next_sentence_accuracy: next.map(|(right, _)| mean(right as f64, examples)),
    };
    let loss = masked_loss + next.map_or(0.0, |(_, loss_sum)| mean(loss_sum, examples));
    SplitReport { loss, examples, scores: Scores::Masked(scores) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Predictions 0, 0, 1, 1 of targets 0, 1, 1, 1.
    #[test]
    fn a_split_by_hand() {
        let labels = LabelSet::new(["a", "b"]).expect("two names");
        let report = evaluate(&[2.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 3.0], &[0, 1, 1, 1], &labels);
        assert_eq!((report.examples, report.score("accuracy")), (4, Some(0.75)));
        let [a, b] = report.labels() else { panic!("two labels") };
        assert_eq!((a.precision, a.recall, a.support), (0.5, 1.0, 1));
        assert_eq!((b.precision, b.recall, b.support), (1.0, 2.0 / 3.0, 3));
        assert!((report.score("macro_f1").expect("labels have it") - (2.0 / 3.0 + 0.8) / 2.0).abs() < 1e-12);
        // −ln σ(d) for the differences d = 2, −1, 1, 3 of the right logit to the other.
        let loss = [2.0f64, -1.0, 1.0, 3.0].map(|d| (1.0 + (-d).exp()).ln()).iter().sum::<f64>() / 4.0;
        assert!((report.loss - loss).abs() < 1e-9);
        let Scores::Labels(LabelScores { accuracy_interval: [low, high], .. }) = report.scores else {
            panic!("labels")
        };
        assert!(0.0 < low && low < 0.75 && 0.75 < high && high < 1.0);
    }

    #[test]
    fn other_tasks_by_hand() {
        let labels = LabelSet::new(["a", "b"]).expect("two names");
        let sets = evaluate_sets(&[1.0, -1.0, 1.0, 1.0], &[vec![0], vec![1]], &labels);
        assert_eq!((sets.score("accuracy"), sets.score("micro_f1")), (Some(0.5), Some(0.8)));
        let loss = [1.0f64, 1.0, -1.0, 1.0].map(|x| (-x).exp().ln_1p()).iter().sum::<f64>() / 4.0;
        assert!((sets.loss - loss).abs() < 1e-9);
        let numbers = evaluate_numbers(&[1.0, 2.0], &[2.0, 4.0]);
        assert_eq!((numbers.loss, numbers.score("accuracy")), (2.5, None));
        assert!((numbers.score("pearson").expect("numbers have it") - 1.0).abs() < 1e-12);
        let answers = evaluate_answers(0.5, &[(1.0, 1.0), (0.0, 0.5)]);
        assert_eq!((answers.score("exact_match"), answers.score("f1")), (Some(0.5), Some(0.75)));

        let tags = LabelSet::new(["O", "B-X", "I-X"]).expect("three names");
        let report = evaluate_tags(0.1, &[vec![1, 2, 0], vec![1]], &[vec![1, 2, 0], vec![0]], &tags);
        assert_eq!((report.score("accuracy"), report.score("entity_precision")), (Some(0.75), Some(0.5)));
        assert_eq!(report.score("entity_recall"), Some(1.0));
        let tags = LabelSet::new(["B", "E", "S"]).expect("three names");
        let words = evaluate_tags(0.1, &[vec![0, 1, 2]], &[vec![2, 2, 2]], &tags);
        assert_eq!(words.score("entity_recall"), Some(1.0 / 3.0));
        let json = serde_json::to_value(&words).expect("it is JSON");
        assert!(json["entity_f1"].is_number() && json["loss"].is_number() && json["examples"] == 1, "{json}");
    }
}
