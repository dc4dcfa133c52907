use kiln_metrics::{entities, pearson, words};
use kiln_schema::{LabelId, TagScheme};

use crate::TagSet;

/// A model's predictions for the rows of a data set, in a form that can be scored on any selection of the rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    metric: &'static str,
    rows: Rows,
}

#[derive(Clone, Debug, PartialEq)]
enum Rows {
    /// The score is a weighted mean over rows.
    Means(Vec<Mean>),
    /// The score is an F1 over all rows.
    Counts(Vec<SpanCounts>),
    /// The score is a correlation.
    Numbers { predictions: Vec<f64>, targets: Vec<f64> },
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Mean {
    sum: f64,
    weight: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct SpanCounts {
    correct: usize,
    predicted: usize,
    real: usize,
}

impl SpanCounts {
    /// F1, or 1 if there is nothing to find and nothing was predicted.
    fn f1(self) -> f64 {
        match self.predicted + self.real {
            0 => 1.0,
            all => 2.0 * self.correct as f64 / all as f64,
        }
    }
}

impl Judged {
    /// One label per row, scored by accuracy.
    pub fn labels(predictions: &[LabelId], targets: &[LabelId]) -> Self {
        let mean = |(prediction, target)| Mean { sum: f64::from(u8::from(prediction == target)), weight: 1.0 };
        Self { metric: "accuracy", rows: Rows::Means(predictions.iter().zip(targets).map(mean).collect()) }
    }

    /// Any number of labels per row, scored by micro F1.
    pub fn label_sets(predictions: &[Vec<LabelId>], targets: &[Vec<LabelId>]) -> Self {
        Self { metric: "micro_f1", rows: Rows::Counts(counts(predictions, targets)) }
    }

    /// One number per row, scored by Pearson's correlation.
    pub fn numbers(predictions: Vec<f64>, targets: Vec<f64>) -> Self {
        Self { metric: "pearson", rows: Rows::Numbers { predictions, targets } }
    }

    /// One answer per row, scored by the mean of the given F1 scores.
    pub fn answers(f1: impl IntoIterator<Item = f64>) -> Self {
        let rows = f1.into_iter().map(|sum| Mean { sum, weight: 1.0 }).collect();
        Self { metric: "f1", rows: Rows::Means(rows) }
    }

    /// Tags of texts, scored by the F1 of the entities or words that they mark; plain tags are scored by accuracy.
    pub fn tags(predictions: &[Vec<LabelId>], targets: &[Vec<LabelId>], TagSet { labels, scheme }: TagSet<'_>) -> Self {
        let named = |tags: &Vec<LabelId>| -> Vec<&str> { tags.iter().map(|tag| labels.name(*tag)).collect() };
        let rows = match scheme {
            TagScheme::Plain => {
                let mean = |(predicted, real): (&Vec<LabelId>, &Vec<LabelId>)| Mean {
                    sum: predicted.iter().zip(real).filter(|(a, b)| a == b).count() as f64,
                    weight: real.len() as f64,
                };
                let rows = predictions.iter().zip(targets).map(mean).collect();
                return Self { metric: "accuracy", rows: Rows::Means(rows) };
            }
            TagScheme::Segmentation => {
                let words = |texts: &[Vec<LabelId>]| texts.iter().map(|tags| words(&named(tags))).collect::<Vec<_>>();
                counts(&words(predictions), &words(targets))
            }
            TagScheme::Entities => {
                let all = |texts: &[Vec<LabelId>]| texts.iter().map(|tags| entities(&named(tags))).collect::<Vec<_>>();
                counts(&all(predictions), &all(targets))
            }
        };
        Self { metric: "entity_f1", rows: Rows::Counts(rows) }
    }

    /// The name of the score, as in reports.
    pub fn metric(&self) -> &'static str {
        self.metric
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        match &self.rows {
            Rows::Means(rows) => rows.len(),
            Rows::Counts(rows) => rows.len(),
            Rows::Numbers { targets, .. } => targets.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The score of a selection of rows, which may contain a row more than once.
    pub fn score(&self, rows: &[usize]) -> f64 {
        match &self.rows {
            Rows::Means(means) => {
                let sum = rows.iter().map(|&row| means[row].sum).sum::<f64>();
                let weight = rows.iter().map(|&row| means[row].weight).sum::<f64>();
                if weight > 0.0 { sum / weight } else { 0.0 }
            }
            Rows::Counts(counts) => {
                let mut total = SpanCounts::default();
                for row in rows.iter().map(|&row| counts[row]) {
                    total.correct += row.correct;
                    total.predicted += row.predicted;
                    total.real += row.real;
                }
                if total.predicted + total.real > 0 { total.f1() } else { 0.0 }
            }
            Rows::Numbers { predictions, targets } => {
                let of = |numbers: &[f64]| rows.iter().map(|&row| numbers[row]).collect::<Vec<f64>>();
                pearson(&of(predictions), &of(targets))
            }
        }
    }

    /// The score of one row: higher is better.
    pub(crate) fn row_score(&self, row: usize) -> f64 {
        match &self.rows {
            Rows::Means(rows) if rows[row].weight > 0.0 => rows[row].sum / rows[row].weight,
            Rows::Means(_) => 1.0,
            Rows::Counts(rows) => rows[row].f1(),
            Rows::Numbers { predictions, targets } => -(predictions[row] - targets[row]).abs(),
        }
    }

    /// Whether the model is right about a row; `None` for numbers, which are not right or wrong.
    pub fn is_right(&self, row: usize) -> Option<bool> {
        match &self.rows {
            Rows::Numbers { .. } => None,
            _ => Some(self.row_score(row) >= 1.0),
        }
    }
}

/// Counts the items that predictions and targets share in each row. A row's items are distinct.
fn counts<T: PartialEq>(predictions: &[Vec<T>], targets: &[Vec<T>]) -> Vec<SpanCounts> {
    let count = |(predicted, real): (&Vec<T>, &Vec<T>)| SpanCounts {
        correct: predicted.iter().filter(|item| real.contains(item)).count(),
        predicted: predicted.len(),
        real: real.len(),
    };
    predictions.iter().zip(targets).map(count).collect()
}
