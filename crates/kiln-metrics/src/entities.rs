use std::collections::BTreeMap;

/// An entity: a label on some neighbouring units.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entity {
    /// The first unit.
    pub start: usize,
    /// Behind the last unit.
    pub end: usize,
    /// What stands behind the dash of its tags; `_` where nothing does.
    pub label: String,
}

/// How tags spell entities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `B-` begins, `I-` goes on.
    Iob2,
    /// `B-`, `I-` or `M-`, `E-` ends, `S-` is one unit; also known as BMES and BIOES.
    Iobes,
}

impl Scheme {
    /// The scheme that a set of tags is of.
    pub fn of<'a>(tags: impl IntoIterator<Item = &'a str>) -> Self {
        let ends = tags.into_iter().any(|tag| matches!(split(tag).0, 'E' | 'S'));
        if ends { Self::Iobes } else { Self::Iob2 }
    }
}

/// Prefix and label of a tag. `M` is another name of `I`.
fn split(tag: &str) -> (char, &str) {
    let prefix = tag.chars().next().unwrap_or('O');
    let rest = &tag[prefix.len_utf8().min(tag.len())..];
    let label = rest.split_once('-').map_or(rest, |(_, label)| label);
    (if prefix == 'M' { 'I' } else { prefix }, if label.is_empty() { "_" } else { label })
}

/// The entities of a sequence of tags, whatever its scheme, by the rule of seqeval's default mode, which is conlleval's:
/// another label, `B` and `S` begin a new entity, and so does anything but `O` after an end. That also says what broken
/// sequences mean.
pub fn entities(tags: &[&str]) -> Vec<Entity> {
    let mut found = Vec::new();
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
            found.push(Entity { start, end: at, label: label_before.to_owned() });
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
    found
}

/// The entities that are spelt as the scheme wants: seqeval's strict mode. Of a broken one there is none.
pub fn strict_entities(tags: &[&str], scheme: Scheme) -> Vec<Entity> {
    let mut found = Vec::new();
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
            found.push(Entity { start, end: at, label: label.to_owned() });
        }
    }
    found
}

/// How well entities were found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EntityScores {
    /// Of those found, the share that is right: label and both borders.
    pub precision: f64,
    /// Of the true ones, the share that was found.
    pub recall: f64,
    /// Harmonic mean of both; 0 where there is nothing.
    pub f1: f64,
    /// How many true ones there are.
    pub support: usize,
}

/// Scores over all entities (micro), and of each label, in alphabetical order.
///
/// # Shapes
/// - `targets`, `predictions`: one list of entities for each sequence
pub fn entity_scores(
    targets: &[Vec<Entity>],
    predictions: &[Vec<Entity>],
) -> (EntityScores, BTreeMap<String, EntityScores>) {
    // Of each label: right, found, true.
    let mut counts: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for (targets, predictions) in targets.iter().zip(predictions) {
        for entity in predictions {
            let count = counts.entry(&entity.label).or_default();
            count[0] += usize::from(targets.contains(entity));
            count[1] += 1;
        }
        for entity in targets {
            counts.entry(&entity.label).or_default()[2] += 1;
        }
    }
    let total = counts.values().fold([0; 3], |sum, count| [0, 1, 2].map(|at| sum[at] + count[at]));
    let by_label = counts.into_iter().map(|(label, count)| (label.to_owned(), scores(count)));
    (scores(total), by_label.collect())
}

pub(crate) fn scores([right, found, support]: [usize; 3]) -> EntityScores {
    let share = |of: usize| if of == 0 { 0.0 } else { right as f64 / of as f64 };
    let (precision, recall) = (share(found), share(support));
    let f1 = if right == 0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) };
    EntityScores { precision, recall, f1, support }
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
        assert!(entities(&[]).is_empty() && entities(&["O", "O"]).is_empty());
        assert_eq!(shown(strict_entities(&["B-A", "M-A", "O", "E-A"], Scheme::Iobes)), "");
    }

    #[test]
    fn scores_by_hand() {
        let of = |tags: &[&str]| entities(tags);
        let targets = [of(&["B-A", "I-A", "O", "B-B"]), of(&["O", "B-A"])];
        let predictions = [of(&["B-A", "I-A", "O", "B-A"]), of(&["O", "O"])];
        let (all, labels) = entity_scores(&targets, &predictions);
        assert_eq!((all.precision, all.recall, all.support), (0.5, 1.0 / 3.0, 3));
        assert!((all.f1 - 0.4).abs() < 1e-12);
        assert_eq!((labels["A"].precision, labels["A"].recall), (0.5, 0.5));
        assert_eq!((labels["B"].f1, labels["B"].support), (0.0, 1));
        assert_eq!(entity_scores(&[], &[]).0, EntityScores::default());
    }
}
