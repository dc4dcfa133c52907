use serde::Serialize;

use crate::Judged;
use crate::charts::escape;
use crate::html::put;

/// The score of a split's rows by the length of their texts, from the shortest to the longest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ByLength {
    /// The score's name.
    pub metric: &'static str,
    /// At most five bins with about the same number of rows. All texts of one length are in the same bin.
    pub bins: Vec<LengthBin>,
}

/// The rows whose lengths are in one range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LengthBin {
    /// The shortest and the longest length, in characters.
    pub characters: [usize; 2],
    /// Number of rows.
    pub examples: usize,
    /// The score of the rows.
    pub score: f64,
}

const BINS: usize = 5;

impl ByLength {
    /// Groups the rows by the length of their texts, and scores each group.
    ///
    /// # Shapes
    /// - `characters`: `[rows]`, the length of each row's texts
    ///
    /// # Panics
    /// When the number of lengths differs from the number of rows.
    pub fn new(judged: &Judged, characters: &[usize]) -> Self {
        assert_eq!(judged.len(), characters.len(), "a length for each row");
        let mut rows: Vec<usize> = (0..characters.len()).collect();
        rows.sort_by_key(|&row| characters[row]);
        let mut bins = Vec::new();
        let mut rest = rows.as_slice();
        while let Some(&first) = rest.first() {
            let at_least = rest.len().div_ceil(BINS - bins.len());
            let longest = characters[rest[at_least - 1]];
            let count = rest.partition_point(|&row| characters[row] <= longest);
            let (bin, longer) = rest.split_at(count);
            bins.push(LengthBin {
                characters: [characters[first], longest],
                examples: count,
                score: judged.score(bin),
            });
            rest = longer;
        }
        Self { metric: judged.metric(), bins }
    }
}

/// Writes a table with one row per bin.
pub(crate) fn length_table(page: &mut String, by_length: &ByLength) {
    if by_length.bins.len() < 2 {
        return;
    }
    let metric = escape(&by_length.metric.replace('_', " "));
    put(page, format_args!("<h3>{metric} by length</h3>\n<table><tr><th>characters</th><th>examples</th>"));
    put(page, format_args!("<th>{metric}</th></tr>\n"));
    for LengthBin { characters: [shortest, longest], examples, score } in &by_length.bins {
        put(page, format_args!("<tr><td>{shortest} to {longest}</td><td>{examples}</td>"));
        let share = score.clamp(0.0, 1.0);
        put(page, format_args!("<td class=\"bar\" style=\"--share:{share:.2}\">{score:.4}</td></tr>\n"));
    }
    page.push_str("</table>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_hold_all_rows_and_no_length_twice() {
        // The predictions for long texts are wrong.
        let characters: Vec<usize> = (0..50).map(|row| if row < 20 { 7 } else { row }).collect();
        let predictions: Vec<usize> = characters.iter().map(|length| usize::from(*length >= 40)).collect();
        let by_length = ByLength::new(&Judged::labels(&predictions, &[0; 50]), &characters);
        assert_eq!(by_length.metric, "accuracy");
        let shape: Vec<_> = by_length.bins.iter().map(|bin| (bin.characters, bin.examples)).collect();
        assert_eq!(shape, [([7, 7], 20), ([20, 27], 8), ([28, 35], 8), ([36, 42], 7), ([43, 49], 7)]);
        assert_eq!(by_length.bins.iter().map(|bin| bin.score).collect::<Vec<_>>(), [1.0, 1.0, 1.0, 4.0 / 7.0, 0.0]);
        let mut page = String::new();
        length_table(&mut page, &by_length);
        assert!(page.contains("<td>36 to 42</td><td>7</td>") && page.contains("--share:0.57"), "{page}");
    }

    #[test]
    fn few_rows_make_few_bins() {
        let by_length = |characters: &[usize]| {
            ByLength::new(&Judged::labels(&vec![0; characters.len()], &vec![0; characters.len()]), characters)
                .bins
                .len()
        };
        assert_eq!((by_length(&[]), by_length(&[3, 3, 3]), by_length(&[1, 2])), (0, 1, 2));
    }
}
