use kiln_metrics::{argmax, softmax};
use kiln_schema::{Example, LabelId, LabelSet};

use crate::tsv;

/// A wrong prediction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mistake {
    /// Index of the example.
    pub row: usize,
    /// The true label.
    pub target: LabelId,
    /// The predicted label.
    pub prediction: LabelId,
    /// The probability of the predicted label.
    pub probability: f64,
}

/// The wrong predictions, the most confident first, at most `most`. Mislabelled rows and systematic errors are at the top.
///
/// # Shapes
/// - `logits`: row-major `[examples, labels]`
/// - `targets`: `[examples]`
pub fn mistakes(logits: &[f32], targets: &[LabelId], most: usize) -> Vec<Mistake> {
    if targets.is_empty() {
        return Vec::new();
    }
    let num_labels = logits.len() / targets.len();
    let mut mistakes: Vec<Mistake> = logits
        .chunks(num_labels)
        .zip(targets)
        .enumerate()
        .map(|(row, (logits, &target))| {
            let prediction = argmax(logits);
            Mistake { row, target, prediction, probability: softmax(logits)[prediction] }
        })
        .filter(|mistake| mistake.prediction != mistake.target)
        .collect();
    mistakes.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    mistakes.truncate(most);
    mistakes
}

/// Writes mistakes as tab-separated values with a header: row (from 1), probability, predicted label, true label, text, and
/// the second text of a pair. Tabs and line breaks within a cell become spaces.
pub fn to_tsv(mistakes: &[Mistake], examples: &[Example], labels: &LabelSet) -> String {
    let cells = |mistake: &Mistake| {
        let (text, pair) = examples[mistake.row].texts();
        [
            (mistake.row + 1).to_string(),
            format!("{:.4}", mistake.probability),
            labels.name(mistake.prediction).to_owned(),
            labels.name(mistake.target).to_owned(),
            text.to_owned(),
            pair.unwrap_or_default().to_owned(),
        ]
    };
    tsv(["row", "probability", "prediction", "target", "text", "text_pair"], mistakes.iter().map(cells))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_confident_mistake_comes_first() {
        let logits = [0.0, 1.0, 5.0, 0.0, 0.0, 3.0];
        let listed = mistakes(&logits, &[0, 1, 1], 10);
        assert_eq!(listed.iter().map(|mistake| mistake.row).collect::<Vec<_>>(), [1, 0]);
        assert!(mistakes(&logits, &[0, 1, 1], 1).len() == 1 && mistakes(&[], &[], 5).is_empty());

        let example = |text: &str| Example { text: text.to_owned(), text_pair: None, target: 0 };
        let labels = LabelSet::new(["no", "yes"]).expect("two names");
        let table = to_tsv(&listed, &[example("a"), example("b\tc"), example("d")], &labels);
        assert_eq!(table.lines().nth(1), Some("2\t0.9933\tno\tyes\tb c\t"));
    }
}
