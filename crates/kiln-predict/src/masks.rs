use kiln_tokenize::{Batch, Encoding};

use crate::{MaskPrediction, TokenPrediction};

/// The default number of candidates for each mask.
pub(crate) const TOP: usize = 5;

/// The masks in the rows of a batch: the index of each mask's encoding, and its position as `row · seq + position`.
pub(crate) fn places(batch: &Batch, encodings: &[Encoding], mask_token_id: u32) -> Vec<(usize, i32)> {
    let masks_of_row = |(at, &row): (usize, &usize)| {
        let ids = encodings[row].input_ids.iter().enumerate();
        let masked = ids.filter(|(_, id)| **id == mask_token_id);
        masked.map(|(place, _)| (row, (at * batch.seq + place) as i32)).collect::<Vec<_>>()
    };
    batch.rows.iter().enumerate().flat_map(masks_of_row).collect()
}

/// The most probable tokens of one mask. `named` returns a token as it is in the vocabulary, and its text.
///
/// # Shapes
/// - `logits`: `[vocab_size]`
pub(crate) fn most_probable(logits: &[f32], top: usize, named: impl Fn(u32) -> [String; 2]) -> MaskPrediction {
    let mut ids: Vec<usize> = (0..logits.len()).collect();
    let top = top.min(ids.len());
    let falling = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
    if top < ids.len() {
        ids.select_nth_unstable_by(top, falling);
        ids.truncate(top);
    }
    ids.sort_unstable_by(falling);
    let highest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let exp = |logit: f32| (f64::from(logit) - highest).exp();
    let sum: f64 = logits.iter().map(|&logit| exp(logit)).sum();
    let candidate = |id: usize| {
        let [token, text] = named(id as u32);
        TokenPrediction { id: id as u32, token, text, score: exp(logits[id]) / sum }
    };
    MaskPrediction { tokens: ids.into_iter().map(candidate).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_probable_come_first() {
        let found = most_probable(&[0.0, 2f32.ln(), -50.0, 5f32.ln()], 2, |id| [id.to_string(), String::new()]);
        let told: Vec<(&str, f64)> = found.tokens.iter().map(|token| (token.token.as_str(), token.score)).collect();
        assert_eq!(told.iter().map(|(token, _)| *token).collect::<Vec<_>>(), ["3", "1"]);
        assert!((told[0].1 - 5.0 / 8.0).abs() < 1e-6 && (told[1].1 - 2.0 / 8.0).abs() < 1e-6, "{told:?}");
        assert_eq!(most_probable(&[1.0], 5, |id| [id.to_string(), String::new()]).tokens.len(), 1);
    }
}
