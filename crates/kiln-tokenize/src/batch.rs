use crate::Encoding;

/// A padded batch: the values of a model's three input tensors.
///
/// # Shapes
/// `input_ids`, `attention_mask` and `token_type_ids` are `[batch, seq]`, row-major, with `batch` = `rows.len()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The index of each row's encoding.
    pub rows: Vec<usize>,
    /// The number of tokens of the longest row.
    pub seq: usize,
    /// Token ids, padded on the right.
    pub input_ids: Vec<i32>,
    /// 1 for a token, 0 for padding.
    pub attention_mask: Vec<i32>,
    /// Token type ids, 0 for padding.
    pub token_type_ids: Vec<i32>,
}

/// Makes a batch of the given rows of `encodings`, padded on the right to the longest of them.
///
/// # Panics
/// When a row is out of bounds.
pub fn pad(encodings: &[Encoding], rows: &[usize], pad_token_id: u32) -> Batch {
    let seq = rows.iter().map(|&row| encodings[row].input_ids.len()).max().unwrap_or(0);
    let cells = rows.len() * seq;
    let mut input_ids = Vec::with_capacity(cells);
    let mut attention_mask = Vec::with_capacity(cells);
    let mut token_type_ids = Vec::with_capacity(cells);
    for (index, &row) in rows.iter().enumerate() {
        let encoding = &encodings[row];
        let end = (index + 1) * seq;
        input_ids.extend(encoding.input_ids.iter().map(|&id| id.cast_signed()));
        attention_mask.resize(input_ids.len(), 1);
        token_type_ids.extend(encoding.token_type_ids.iter().map(|&id| id.cast_signed()));
        input_ids.resize(end, pad_token_id.cast_signed());
        attention_mask.resize(end, 0);
        token_type_ids.resize(end, 0);
    }
    Batch { rows: rows.to_vec(), seq, input_ids, attention_mask, token_type_ids }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_padded_on_the_right_to_the_longest() {
        let row = |input_ids: &[u32], token_type_ids: &[u32]| Encoding {
            input_ids: input_ids.to_vec(),
            token_type_ids: token_type_ids.to_vec(),
            full_length: input_ids.len(),
            full_length_is_exact: true,
        };
        let encodings = [row(&[5, 6, 7], &[0, 1, 1]), row(&[8, 8, 8, 8, 8], &[0; 5]), row(&[9], &[0])];
        let batch = pad(&encodings, &[2, 0], 4);
        assert_eq!(
            batch,
            Batch {
                rows: vec![2, 0],
                seq: 3,
                input_ids: vec![9, 4, 4, 5, 6, 7],
                attention_mask: vec![1, 0, 0, 1, 1, 1],
                token_type_ids: vec![0, 0, 0, 0, 1, 1],
            }
        );
        assert_eq!(pad(&encodings, &[], 4).seq, 0);
    }
}
