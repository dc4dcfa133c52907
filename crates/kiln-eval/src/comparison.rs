use kiln_metrics::{Bootstrap, mcnemar_exact, paired_effect_size};
use serde::Serialize;

use crate::Judged;

/// A statistical comparison of two models on the same rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The name of the score.
    pub metric: &'static str,
    /// The first model's score.
    pub a: f64,
    /// The second model's score.
    pub b: f64,
    /// `b` − `a`.
    pub difference: f64,
    /// 95 % confidence interval of the difference, by a paired bootstrap.
    pub interval: [f64; 2],
    /// The p-value of McNemar's exact test on the rows that only one model predicts correctly; `None` for numbers, which
    /// are not right or wrong.
    pub mcnemar_p: Option<f64>,
    /// Cohen's d of the rows' scores. By convention, 0.2 is small, 0.5 medium and 0.8 large.
    pub effect_size: f64,
    /// Number of rows.
    pub examples: usize,
    /// Number of rows that only the first model predicts correctly.
    pub only_a: u64,
    /// Number of rows that only the second model predicts correctly.
    pub only_b: u64,
}

impl Comparison {
    /// Compares the predictions of two models for the same rows.
    ///
    /// # Panics
    /// When the numbers of rows or the scores differ.
    pub fn new(a: &Judged, b: &Judged) -> Self {
        assert_eq!((a.metric(), a.len()), (b.metric(), b.len()), "two models on the same rows");
        let all: Vec<usize> = (0..a.len()).collect();
        let only = |this: &Judged, other: &Judged| {
            let is_only = |&&row: &&usize| this.is_right(row) == Some(true) && other.is_right(row) == Some(false);
            all.iter().filter(is_only).count() as u64
        };
        let (only_a, only_b) = (only(a, b), only(b, a));
        let each = |judged: &Judged| all.iter().map(|&row| judged.row_score(row)).collect::<Vec<f64>>();
        let (score_a, score_b) = (a.score(&all), b.score(&all));
        Self {
            metric: a.metric(),
            a: score_a,
            b: score_b,
            difference: score_b - score_a,
            interval: Bootstrap::default().interval(all.len(), |rows| b.score(rows) - a.score(rows)),
            mcnemar_p: all.first().and_then(|&row| a.is_right(row)).map(|_| mcnemar_exact(only_a, only_b)),
            effect_size: paired_effect_size(&each(a), &each(b)),
            examples: all.len(),
            only_a,
            only_b,
        }
    }

    /// Whether the confidence interval of the difference excludes zero.
    pub fn is_significant(&self) -> bool {
        self.interval[0] > 0.0 || self.interval[1] < 0.0
    }
}

#[cfg(test)]
mod tests {
    use kiln_schema::{LabelSet, TagScheme};

    use super::*;
    use crate::TagSet;

    /// Of 100 rows, the first model is right about 80 and the second about 95, including all but one of the first's.
    #[test]
    fn the_better_model_is_found() {
        let targets = vec![0; 100];
        let wrong =
            |is_wrong: fn(usize) -> bool| -> Vec<usize> { (0..100).map(|row| usize::from(is_wrong(row))).collect() };
        let a = Judged::labels(&wrong(|row| row < 20), &targets);
        let b = Judged::labels(&wrong(|row| row < 4 || row == 99), &targets);
        let compared = Comparison::new(&a, &b);
        assert_eq!((compared.metric, compared.a, compared.b, compared.examples), ("accuracy", 0.8, 0.95, 100));
        assert_eq!((compared.only_a, compared.only_b), (1, 16));
        // Two-sided binomial test of 1 in 17: 2 · (1 + 17) / 2¹⁷.
        assert!((compared.mcnemar_p.expect("rows are right or wrong") - 36.0 / 131_072.0).abs() < 1e-12);
        assert!(compared.is_significant() && compared.interval[0] > 0.0, "{compared:?}");
        assert!((0.05..0.15).contains(&compared.interval[0]) && (0.15..0.25).contains(&compared.interval[1]));
        let same = Comparison::new(&a, &a);
        assert_eq!((same.difference, same.interval, same.mcnemar_p), (0.0, [0.0; 2], Some(1.0)));
        assert!(!same.is_significant());
    }

    #[test]
    fn scores_are_those_of_reports() {
        let all = [0, 1, 2];
        let sets = Judged::label_sets(&[vec![0, 1], vec![], vec![1]], &[vec![0], vec![], vec![0]]);
        assert_eq!((sets.metric(), sets.score(&all)), ("micro_f1", 2.0 * 1.0 / 5.0));
        assert_eq!([0, 1, 2].map(|row| sets.is_right(row)), [Some(false), Some(true), Some(false)]);

        let labels = LabelSet::new(["O", "B-A", "I-A"]).expect("three names");
        let tags = TagSet { labels: &labels, scheme: TagScheme::Entities };
        let (predicted, real) = ([vec![1, 2, 0], vec![1]], [vec![1, 2, 0], vec![0]]);
        let entities = Judged::tags(&predicted, &real, tags);
        assert_eq!((entities.metric(), entities.score(&[0, 1])), ("entity_f1", 2.0 / 3.0));
        let report = crate::evaluate_tags(0.0, &predicted, &real, tags).expect("the loss is finite");
        assert_eq!(report.score("entity_f1"), Some(entities.score(&[0, 1])));
        let plain = Judged::tags(&predicted, &real, TagSet { scheme: TagScheme::Plain, ..tags });
        assert_eq!((plain.metric(), plain.score(&[0, 1])), ("accuracy", 0.75));

        let numbers = Judged::numbers(vec![1.0, 2.0, 4.0], vec![1.0, 2.0, 3.0]);
        let compared = Comparison::new(&numbers, &Judged::numbers(vec![1.0, 2.0, 3.0], vec![1.0, 2.0, 3.0]));
        assert!(compared.mcnemar_p.is_none() && (compared.b - 1.0).abs() < 1e-12);
        assert!(compared.difference > 0.0 && compared.effect_size > 0.0);
    }
}
