use std::collections::{BTreeMap, HashSet};
use std::iter::Sum;

use crate::accuracy::ratio;

/// An entity: a label for consecutive units.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entity {
    /// The index of the first unit.
    pub start: usize,
    /// The index after the last unit.
    pub end: usize,
    /// The part of the tags after the hyphen; `_` if they have none.
    pub label: String,
}

/// The prefixes of entity tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `B-` begins an entity and `I-` continues it.
    Iob2,
    /// `B-` begins an entity, `I-` or `M-` continues it, `E-` ends it, and `S-` is an entity of one unit. Also known as BMES
    /// and BIOES.
    Iobes,
}

impl Scheme {
    /// The scheme of a set of tags.
    pub fn of<'a>(tags: impl IntoIterator<Item = &'a str>) -> Self {
        let ends = tags.into_iter().any(|tag| matches!(split(tag).0, 'E' | 'S'));
        if ends { Self::Iobes } else { Self::Iob2 }
    }
}

/// The prefix and label of a tag. `M` is another name for `I`, `L` for `E`, and `U` for `S`.
fn split(tag: &str) -> (char, &str) {
    let prefix = tag.chars().next().unwrap_or('O');
    let after_prefix = &tag[prefix.len_utf8().min(tag.len())..];
    let label = after_prefix.split_once('-').map_or(after_prefix, |(_, label)| label);
    let prefix = match prefix {
        'M' => 'I',
        'L' => 'E',
        'U' => 'S',
        other => other,
    };
    (prefix, if label.is_empty() { "_" } else { label })
}

/// The entities of a sequence of tags in any scheme, by the rules of conlleval and of seqeval's default mode. A different
/// label, `B`, `S`, or any tag except `O` after `E` or `S` begins a new entity. These rules also apply to invalid sequences.
/// Unlike in seqeval, `L` and `U` are equivalent to `E` and `S`.
pub fn entities(tags: &[&str]) -> Vec<Entity> {
    let mut entities = Vec::new();
    let mut start = 0;
    let (mut before, mut label_before) = ('O', "_");
    for (at, tag) in tags.iter().copied().chain(["O"]).enumerate() {
        let (prefix, label) = split(tag);
        let other = label != label_before;
        let ends = match before {
            'O' => false,
            'E' | 'S' => true,
            'B' | 'I' => matches!(prefix, 'B' | 'S' | 'O') || other,
            _ => other,
        };
        if ends {
            entities.push(Entity { start, end: at, label: label_before.to_owned() });
        }
        let starts = match prefix {
            'O' => false,
            'B' | 'S' => true,
            'E' | 'I' => matches!(before, 'E' | 'S' | 'O') || other,
            _ => other,
        };
        if starts {
            start = at;
        }
        (before, label_before) = (prefix, label);
    }
    entities
}

/// The entities whose tags follow the scheme exactly: seqeval's strict mode. Invalid sequences of tags are not entities.
pub fn strict_entities(tags: &[&str], scheme: Scheme) -> Vec<Entity> {
    let mut entities = Vec::new();
    let mut at = 0;
    while at < tags.len() {
        let (prefix, label) = split(tags[at]);
        let start = at;
        at += 1;
        let same = |at: usize, wanted: char| tags.get(at).is_some_and(|tag| split(tag) == (wanted, label));
        let whole = match prefix {
            'S' => scheme == Scheme::Iobes,
            'B' => {
                while same(at, 'I') {
                    at += 1;
                }
                let ends = scheme == Scheme::Iob2 || same(at, 'E');
                at += usize::from(ends && scheme == Scheme::Iobes);
                ends
            }
            _ => false,
        };
        if whole {
            entities.push(Entity { start, end: at, label: label.to_owned() });
        }
    }
    entities
}

/// Precision, recall and F1 of entities.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EntityScores {
    /// The share of predicted entities that are correct, in label and both boundaries.
    pub precision: f64,
    /// The share of true entities that were predicted.
    pub recall: f64,
    /// The harmonic mean of precision and recall; 0 if both are 0.
    pub f1: f64,
    /// The number of true entities.
    pub support: usize,
}

/// The scores over all entities (micro average), and the scores of each label in alphabetical order.
///
/// # Shapes
/// - `targets`, `predictions`: one list of entities for each sequence
pub fn entity_scores(
    targets: &[Vec<Entity>],
    predictions: &[Vec<Entity>],
) -> (EntityScores, BTreeMap<String, EntityScores>) {
    let mut counts: BTreeMap<&str, Counts> = BTreeMap::new();
    for (targets, predictions) in targets.iter().zip(predictions) {
        let known: HashSet<&Entity> = targets.iter().collect();
        for entity in predictions {
            let count = counts.entry(&entity.label).or_default();
            count.correct += usize::from(known.contains(entity));
            count.predicted += 1;
        }
        for entity in targets {
            counts.entry(&entity.label).or_default().support += 1;
        }
    }
    let total: Counts = counts.values().copied().sum();
    let by_label = counts.into_iter().map(|(label, count)| (label.to_owned(), count.scores()));
    (total.scores(), by_label.collect())
}

/// The counts from which precision and recall are computed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Number of correct predictions.
    pub correct: usize,
    /// Number of predictions.
    pub predicted: usize,
    /// Number of targets.
    pub support: usize,
}

impl Counts {
    pub fn scores(self) -> EntityScores {
        let share = |total: usize| ratio(self.correct as f64, total as f64);
        let (precision, recall) = (share(self.predicted), share(self.support));
        let f1 = ratio(2.0 * precision * recall, precision + recall);
        EntityScores { precision, recall, f1, support: self.support }
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, count| Self {
            correct: sum.correct + count.correct,
            predicted: sum.predicted + count.predicted,
            support: sum.support + count.support,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(entities: Vec<Entity>) -> String {
        entities.iter().map(|e| format!("{}{}-{} ", e.label, e.start, e.end)).collect::<String>().trim().to_owned()
    }

    #[test]
    fn chinese_and_english_schemes() {
        let bmes = ["B-A", "M-A", "E-A", "O", "S-B", "B-A", "E-A"];
        assert_eq!(shown(entities(&bmes)), "A0-3 B4-5 A5-7");
        assert_eq!(shown(strict_entities(&bmes, Scheme::Iobes)), "A0-3 B4-5 A5-7");
        assert_eq!(Scheme::of(bmes), Scheme::Iobes);
        let bio = ["I-A", "I-A", "B-A", "I-B", "O", "B-C"];
        assert_eq!(shown(entities(&bio)), "A0-2 A2-3 B3-4 C5-6");
        assert_eq!(shown(strict_entities(&bio, Scheme::Iob2)), "A2-3 C5-6");
        assert_eq!(shown(entities(&["U-A", "U-A", "B-A", "L-A", "I-A"])), "A0-1 A1-2 A2-4 A4-5");
        assert!(entities(&[]).is_empty() && entities(&["O", "O"]).is_empty());
        assert_eq!(shown(strict_entities(&["B-A", "M-A", "O", "E-A"], Scheme::Iobes)), "");
    }

    #[test]
    fn scores_by_hand() {
        let targets = [entities(&["B-A", "I-A", "O", "B-B"]), entities(&["O", "B-A"])];
        let predictions = [entities(&["B-A", "I-A", "O", "B-A"]), entities(&["O", "O"])];
        let (all, labels) = entity_scores(&targets, &predictions);
        assert_eq!((all.precision, all.recall, all.support), (0.5, 1.0 / 3.0, 3));
        assert!((all.f1 - 0.4).abs() < 1e-12);
        assert_eq!((labels["A"].precision, labels["A"].recall), (0.5, 0.5));
        assert_eq!((labels["B"].f1, labels["B"].support), (0.0, 1));
        assert_eq!(entity_scores(&[], &[]).0, EntityScores::default());
    }
}
