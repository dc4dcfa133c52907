use std::collections::HashSet;
use std::ops::Range;

use crate::entities::{Counts, EntityScores};

/// The words of a sequence of tags B, M or I, E and S, as ranges of units. B and S begin a word; E and S end one. The words
/// cover all units, even if the sequence is invalid.
pub fn words(tags: &[&str]) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut ended = true;
    for (at, tag) in tags.iter().enumerate() {
        match words.last_mut() {
            Some(word) if !ended && !tag.starts_with(['B', 'S']) => word.end = at + 1,
            _ => words.push(at..at + 1),
        }
        ended = tag.starts_with(['E', 'S']);
    }
    words
}

/// Precision, recall and F1 of words, as in the SIGHAN bakeoffs: a word is correct if both its boundaries are.
///
/// # Shapes
/// - `targets`, `predictions`: the words of each text, in order
pub fn word_scores(targets: &[Vec<Range<usize>>], predictions: &[Vec<Range<usize>>]) -> EntityScores {
    let count = |(targets, predictions): (&Vec<Range<usize>>, &Vec<Range<usize>>)| {
        let known: HashSet<&Range<usize>> = targets.iter().collect();
        let correct = predictions.iter().filter(|word| known.contains(word)).count();
        Counts { correct, predicted: predictions.len(), support: targets.len() }
    };
    targets.iter().zip(predictions).map(count).sum::<Counts>().scores()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_tags_cover_every_unit_too() {
        assert_eq!(words(&["B", "E", "S", "B", "M", "E"]), [0..2, 2..3, 3..6]);
        assert_eq!(words(&["M", "B", "M", "B", "S", "E", "M"]), [0..1, 1..3, 3..4, 4..5, 5..6, 6..7]);
        assert!(words(&[]).is_empty());
    }

    #[test]
    fn a_word_is_right_with_both_borders() {
        let scores = word_scores(&[vec![0..2, 2..3, 3..6]], &[vec![0..2, 2..4, 4..5, 5..6]]);
        assert_eq!((scores.precision, scores.recall), (0.25, 1.0 / 3.0));
        assert!((scores.f1 - 2.0 / 7.0).abs() < 1e-12);
    }
}
