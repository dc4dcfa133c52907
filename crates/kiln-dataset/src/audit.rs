use std::collections::HashMap;

use kiln_schema::{Split, Splits};
use serde::Serialize;

use crate::Item;
use crate::key::{self, Key};

mod lengths;
mod table;

pub use lengths::{LengthAudit, Lengths};

/// The sizes and problems of labelled data.
///
/// [`Display`](std::fmt::Display) writes a table, and [`Audit::summary`] returns a few lines for a log. Texts are
/// trimmed before they are compared. Pairs are equal when both texts are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Audit {
    /// The audit of each split, in the order train, validation, test.
    pub splits: Vec<SplitAudit>,
    /// The overlap of each later split with each earlier one.
    pub overlaps: Vec<Overlap>,
}

/// The audit of one split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitAudit {
    /// The split.
    pub split: Split,
    /// The number of examples.
    pub rows: usize,
    /// The number of different texts.
    pub distinct: usize,
    /// Rows that repeat an earlier text: `rows - distinct`.
    pub duplicates: Finding,
    /// Distinct texts that differ from an earlier one only in case, width, spaces and punctuation.
    pub near_duplicates: Finding,
    /// Texts with more than one label.
    pub conflicts: Finding,
    /// Rows whose text, or either text of a pair, is empty.
    pub empty: Finding,
    /// The number of rows per label, in the order of the label set.
    pub labels: Vec<LabelCount>,
    /// Lengths in tokens, if they were given.
    pub lengths: Option<LengthAudit>,
}

/// Rows of one split that are also in an earlier one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Overlap {
    /// The split whose rows are counted.
    pub split: Split,
    /// The earlier split.
    pub with: Split,
    /// Rows of `split` whose text is in `with`.
    pub rows: Finding,
    /// Further rows whose text differs from one in `with` only in case, width, spaces and punctuation.
    pub near: usize,
    /// The number of `rows` whose text has exactly one label in `with`, different from their own.
    pub relabelled: usize,
}

/// A count, with a few example texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The number of occurrences.
    pub count: usize,
    /// The first few texts, shortened.
    pub examples: Vec<String>,
}

/// The frequency of a label.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelCount {
    /// The name of the label.
    pub label: String,
    /// The number of rows with this label; for tagged texts, the number of units.
    pub rows: usize,
    /// The share of all labels of the split, 0 to 1.
    pub share: f64,
}

impl Audit {
    /// The number of validation and test rows whose text was used to train or to select a model: rows that are also in
    /// train, and test rows that are also in validation. A row that is in both counts twice. The text of a question is its
    /// context.
    pub fn leaks(&self) -> usize {
        self.overlaps.iter().map(|overlap| overlap.rows.count).sum()
    }
}

/// Audits labelled data. It stores hashes instead of texts, so a million rows fit in memory.
///
/// # Panics
/// When an item has a label that is not an index into `labels`.
pub fn audit<T: Item>(splits: &Splits<Vec<T>>, labels: &[String], lengths: Option<Lengths>) -> Audit {
    let mut audits = Vec::new();
    let mut overlaps = Vec::new();
    let mut earlier: Vec<Part<'_, T>> = Vec::new();
    for (split, examples) in splits.iter() {
        let part = Part::new(split, examples);
        overlaps.extend(earlier.iter().map(|with| overlap(&part, with)));
        let lengths = lengths.as_ref().and_then(|lengths| lengths.audit(split, T::IS_WINDOWED));
        audits.push(SplitAudit { lengths, ..audit_part(&part, labels) });
        earlier.push(part);
    }
    Audit { splits: audits, overlaps }
}

/// A split with the keys of its texts.
struct Part<'a, T> {
    split: Split,
    examples: &'a [T],
    texts: Index,
    /// The texts that must not occur in two splits, if they are others.
    sources: Option<Index>,
}

/// The texts of a split.
struct Index {
    /// The exact and the loose key of each row.
    keys: Vec<(Key, Key)>,
    /// The rows of each text, by exact key.
    seen: HashMap<Key, Seen>,
    /// The first row for each loose key.
    near: HashMap<Key, u32>,
}

/// The rows with the same text.
struct Seen {
    first: u32,
    /// Whether a later row has other labels.
    conflict: bool,
}

impl<'a, T: Item> Part<'a, T> {
    fn new(split: Split, examples: &'a [T]) -> Self {
        let has_sources = examples.first().is_some_and(|example| example.source() != example.texts());
        let sources = has_sources.then(|| Index::new(examples, T::source));
        Self { split, examples, texts: Index::new(examples, T::texts), sources }
    }

    fn sources(&self) -> &Index {
        self.sources.as_ref().unwrap_or(&self.texts)
    }
}

impl Index {
    fn new<T: Item>(examples: &[T], texts: impl Fn(&T) -> (&str, Option<&str>)) -> Self {
        let key = |example: &T| (key::exact(texts(example)), key::loose(texts(example)));
        let mut index = Self { keys: examples.iter().map(key).collect(), seen: HashMap::new(), near: HashMap::new() };
        for ((row, example), (exact, loose)) in (0u32..).zip(examples).zip(&index.keys) {
            let seen = index.seen.entry(*exact).or_insert(Seen { first: row, conflict: false });
            seen.conflict |= examples[seen.first as usize].labels() != example.labels();
            index.near.entry(*loose).or_insert(row);
        }
        index
    }
}

fn audit_part<T: Item>(part: &Part<'_, T>, labels: &[String]) -> SplitAudit {
    let mut duplicates = Finding::default();
    let mut near_duplicates = Finding::default();
    let mut conflicts = Finding::default();
    let mut empty = Finding::default();
    let mut counts = vec![0; labels.len()];
    for (row, (example, (exact, loose))) in (0u32..).zip(part.examples.iter().zip(&part.texts.keys)) {
        for label in example.labels() {
            counts[*label] += 1;
        }
        let seen = &part.texts.seen[exact];
        if seen.first != row {
            duplicates.add(|| show(example));
        } else {
            // Count the text once, at its first row.
            if seen.conflict {
                conflicts.add(|| show(example));
            }
            let first = part.texts.near[loose];
            if first != row {
                near_duplicates.add(|| format!("{} ~ {}", show(&part.examples[first as usize]), show(example)));
            }
        }
        let (text, text_pair) = example.texts();
        if text.trim().is_empty() || text_pair.is_some_and(|text| text.trim().is_empty()) {
            empty.add(|| show(example));
        }
    }
    let total = part.examples.iter().map(|example| example.labels().len()).sum::<usize>();
    let share = |rows: usize| if rows == 0 { 0.0 } else { rows as f64 / total as f64 };
    let labels = counts
        .into_iter()
        .zip(labels)
        .map(|(rows, label)| LabelCount { label: label.clone(), rows, share: share(rows) })
        .collect();
    SplitAudit {
        split: part.split,
        rows: part.examples.len(),
        distinct: part.texts.seen.len(),
        duplicates,
        near_duplicates,
        conflicts,
        empty,
        labels,
        lengths: None,
    }
}

fn overlap<T: Item>(part: &Part<'_, T>, with: &Part<'_, T>) -> Overlap {
    let mut overlap = Overlap { split: part.split, with: with.split, rows: Finding::default(), near: 0, relabelled: 0 };
    for (example, (exact, loose)) in part.examples.iter().zip(&part.sources().keys) {
        match with.sources().seen.get(exact) {
            Some(seen) => {
                overlap.rows.add(|| show(example));
                overlap.relabelled +=
                    usize::from(with.examples[seen.first as usize].labels() != example.labels() && !seen.conflict);
            }
            None => overlap.near += usize::from(with.sources().near.contains_key(loose)),
        }
    }
    overlap
}

impl Finding {
    /// The number of example texts to keep.
    const SHOWN: usize = 3;

    fn add(&mut self, example: impl FnOnce() -> String) {
        self.count += 1;
        if self.examples.len() < Self::SHOWN {
            self.examples.push(example());
        }
    }
}

/// The text, or both texts of a pair, shortened to fit on a line.
fn show<T: Item>(example: &T) -> String {
    const CHARS: usize = 32;
    let cut = |text: &str| {
        let text = text.trim();
        let mut short: String =
            text.chars().take(CHARS).map(|char| if char.is_control() { ' ' } else { char }).collect();
        if text.chars().nth(CHARS).is_some() {
            short.push('…');
        }
        short
    };
    match example.texts() {
        (text, Some(text_pair)) => format!("{} | {}", cut(text), cut(text_pair)),
        (text, None) => cut(text),
    }
}

#[cfg(test)]
mod tests {
    use kiln_schema::{Example, LabelId, Question};

    use super::*;

    fn example(text: &str, target: LabelId) -> Example {
        Example { text: text.to_owned(), text_pair: None, target }
    }

    fn small() -> Audit {
        let train = [("很好", 0), ("很好 ", 1), ("很好！", 0), ("差", 1), ("差", 1), ("", 0)];
        let validation = [("差", 0), ("很好", 1), ("很\u{3000}好", 0), ("新", 1)];
        let splits = Splits {
            train: train.map(|(text, target)| example(text, target)).to_vec(),
            validation: validation.map(|(text, target)| example(text, target)).to_vec(),
            test: Some(vec![example("新", 1)]),
        };
        let labels = ["good", "bad", "mixed"].map(str::to_owned);
        let tokens = Splits { train: vec![4, 4, 5, 3, 3, 2], validation: vec![3, 4, 4, 3], test: Some(vec![3]) };
        audit(&splits, &labels, Some(Lengths { tokens, max_length: 4 }))
    }

    #[test]
    fn each_fault_is_counted() {
        let audit = small();
        let train = &audit.splits[0];
        assert_eq!((train.rows, train.distinct), (6, 4));
        assert_eq!((train.duplicates.count, train.near_duplicates.count), (2, 1));
        assert_eq!((train.conflicts.count, train.empty.count), (1, 1));
        assert_eq!(train.conflicts.examples, ["很好"]);
        assert_eq!(train.near_duplicates.examples, ["很好 ~ 很好！"]);
        assert_eq!(train.labels.iter().map(|label| label.rows).collect::<Vec<_>>(), [3, 3, 0]);
        assert_eq!(train.lengths.as_ref().map(|lengths| lengths.longer), Some(1));

        let found =
            |overlap: &Overlap| (overlap.split, overlap.with, overlap.rows.count, overlap.near, overlap.relabelled);
        assert_eq!(
            audit.overlaps.iter().map(found).collect::<Vec<_>>(),
            [
                (Split::Validation, Split::Train, 2, 1, 1),
                (Split::Test, Split::Train, 0, 0, 0),
                (Split::Test, Split::Validation, 1, 0, 0),
            ]
        );
        assert_eq!(audit.leaks(), 3);
    }

    #[test]
    fn the_summary_says_what_is_wrong() {
        let expected = "\
train 6 rows, validation 4 rows, test 1 row; 3 labels
validation: 2 rows also in train, 1 of them under another label; 1 more that differ only in case, width, spaces and punctuation
test: 1 row also in validation
train: 2 rows repeat an earlier one
train: 1 text repeats an earlier one apart from case, width, spaces and punctuation";
        let summary = small().summary();
        assert!(summary.starts_with(expected), "{summary}");
        assert!(summary.contains("\ntrain: no row of 1 label: `mixed`\n"), "{summary}");
        assert!(small().to_string().contains("validation           4"), "{}", small());
    }

    #[test]
    fn a_long_list_of_labels_without_rows_is_cut() {
        let splits = Splits { train: vec![example("a", 0)], validation: vec![example("b", 0)], test: None };
        let labels: Vec<String> = (0..30).map(|label| label.to_string()).collect();
        let summary = audit(&splits, &labels, None).summary();
        assert!(summary.contains("train: no row of 29 labels: `1`, `2`, "), "{summary}");
        assert!(summary.contains("`20` and 9 more"), "{summary}");
    }

    /// As [`drop_leaks`](crate::drop_leaks) counts them.
    #[test]
    fn questions_with_the_same_context_are_leaks() {
        let question = |question: &str, context: &str| Question {
            id: question.to_owned(),
            question: question.to_owned(),
            context: context.to_owned(),
            answers: Vec::new(),
        };
        let train = vec![question("a", "x"), question("b", "x"), question("c", "y")];
        let splits = Splits { train, validation: vec![question("d", "x")], test: Some(vec![question("a", "z")]) };
        let found = audit(&splits, &[], None);
        assert_eq!((found.leaks(), found.splits[0].duplicates.count), (1, 0));
        assert_eq!(crate::drop_leaks(splits).1, 2, "both questions on the context of validation");
    }

    #[test]
    fn pairs_are_compared_as_pairs() {
        let pair = |text: &str, text_pair: &str| Example { text_pair: Some(text_pair.to_owned()), ..example(text, 0) };
        let splits = Splits {
            train: vec![pair("a", "b"), pair("a", "c"), pair("a", "b"), pair("a", "")],
            validation: vec![pair("b", "a"), pair("a", "c")],
            test: None,
        };
        let audit = audit(&splits, &["0".to_owned()], None);
        assert_eq!((audit.splits[0].duplicates.count, audit.splits[0].empty.count), (1, 1));
        assert_eq!(audit.splits[0].duplicates.examples, ["a | b"]);
        assert_eq!(audit.leaks(), 1);
        assert!(audit.splits[0].lengths.is_none());
    }
}
