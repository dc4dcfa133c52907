use kiln_tokenize::{Encoding, Tokenizer};
use kiln_train::Dataset as _;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::permutation::{mix, permute};
use crate::{Error, Masking, PretrainingSet, TokenRow, TokenStore};

/// Turns a row of a store into a masked row for training.
#[derive(Clone, Debug)]
pub struct Drawing {
    /// Adds the special tokens around segments.
    pub tokenizer: Tokenizer,
    /// Selects and masks the tokens.
    pub masking: Masking,
    /// Whether rows have two segments. In half of the rows, the second segment comes from another document.
    pub next_sentence: bool,
    /// Seed of the random numbers.
    pub seed: u64,
}

/// A row with its masks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// The masked row.
    pub encoding: Encoding,
    /// Position of the first token that is not a special token.
    pub first: usize,
    /// The positions that the model must predict, in order, with their original ids.
    pub targets: Vec<(usize, u32)>,
    /// Whether the second segment comes from another document; false without a second segment.
    pub is_random: bool,
}

impl Drawing {
    /// The row that is drawn at position `index` of an epoch. An epoch draws each of the `count` rows once.
    pub(crate) fn order(&self, index: usize, count: usize, epoch: usize) -> usize {
        permute(index as u64, count as u64, mix(self.seed ^ mix(epoch as u64 + 1))) as usize
    }

    /// Masks the row of a set at `row` in the store. `number` seeds the random numbers; the same row has another number in each
    /// epoch. A segment of another document comes from the same set.
    ///
    /// # Errors
    /// When the store cannot be read, or a segment of another document is needed and there is no other document.
    pub(crate) fn draw(&self, set: &PretrainingSet, row: usize, number: usize) -> Result<Drawn, Error> {
        let random = &mut StdRng::seed_from_u64(mix(self.seed.wrapping_add(mix(number as u64 + 1))));
        let mut first = set.store().row(row)?;
        let (mut second, mut is_random) = (None, false);
        if self.next_sentence {
            let border = border(&first, random);
            let mut follows = first.tokens.split_off(border);
            is_random = random.random_bool(0.5);
            if is_random {
                follows = elsewhere(set, first.document, follows.len(), random)?;
            }
            second = Some(follows);
        }
        let (mut encoding, first_place, second_place) = self.tokenizer.assemble(&first.tokens, second.as_deref())?;
        let split = first.tokens.len();
        // The share of masked tokens is that of both segments together.
        let mut ids = [first.tokens, second.unwrap_or_default()].concat();
        let place = |at: usize| if at < split { first_place + at } else { second_place + at - split };
        let targets = self.masking.mask(&mut ids, random).into_iter().map(|(at, id)| (place(at), id)).collect();
        for (at, id) in ids.into_iter().enumerate() {
            encoding.input_ids[place(at)] = id;
        }
        Ok(Drawn { encoding, first: first_place, targets, is_random })
    }
}

/// The token where the second segment begins: the start of a sentence, or the middle if there is only one sentence.
fn border(row: &TokenRow, random: &mut StdRng) -> usize {
    match row.starts.len() {
        0 | 1 => row.tokens.len() / 2,
        sentences => row.starts[random.random_range(1..sentences)],
    }
}

/// Draws `length` tokens of a row of another document, from the start of a sentence; fewer if the row is shorter.
fn elsewhere(set: &PretrainingSet, document: u64, length: usize, random: &mut StdRng) -> Result<Vec<u32>, Error> {
    let row = other_row(set, document, random)?;
    let TokenRow { tokens, starts, .. } = set.store().row(row)?;
    let latest = tokens.len().saturating_sub(length);
    let fitting = starts.iter().take_while(|start| **start <= latest).count();
    let start = starts[random.random_range(0..fitting)];
    Ok(tokens[start..tokens.len().min(start + length)].to_vec())
}

/// Draws a row of another document.
fn other_row(set: &PretrainingSet, document: u64, random: &mut StdRng) -> Result<usize, Error> {
    // With many documents, few tries are needed. After the last try, the next row of another document is taken.
    const TRIES: usize = 32;
    let (store, count) = (set.store(), set.rows());
    let mut index = random.random_range(0..count);
    for _ in 0..TRIES {
        let row = set.row(index);
        if store.shape(row)?.0 != document {
            return Ok(row);
        }
        index = random.random_range(0..count);
    }
    // The few rows for validation may be of one document. Then a segment comes from any row of the store.
    let own = (0..count).map(|offset| set.row((index + offset) % count));
    for row in own.chain(0..store.rows()) {
        if store.shape(row)?.0 != document {
            return Ok(row);
        }
    }
    Err(no_other_document(store))
}

/// Checks that the rows of a set are of at least two documents.
pub(crate) fn check_documents(set: &PretrainingSet) -> Result<(), Error> {
    let document = |index| Ok::<_, Error>(set.store().shape(set.row(index))?.0);
    // A document's rows follow one another.
    if document(0)? == document(set.rows() - 1)? { Err(no_other_document(set.store())) } else { Ok(()) }
}

fn no_other_document(store: &TokenStore) -> Error {
    Error::NoOtherDocument { documents: store.documents() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::pretraining_set::tests::sets;

    #[test]
    fn no_segment_of_a_training_row_is_held_back() {
        let (train, validation) = sets(500, true).expect("there is enough");
        let rows = |set: &PretrainingSet| -> HashSet<usize> { (0..set.rows()).map(|index| set.row(index)).collect() };
        let random = &mut StdRng::seed_from_u64(4);
        for set in [&train, &validation] {
            let own = rows(set);
            assert!((0..5_000).all(|_| own.contains(&other_row(set, 7, random).expect("there is another document"))));
        }
    }

    #[test]
    fn a_single_row_for_validation_takes_other_segments_from_all_rows() {
        let (train, validation) = sets(4, true).expect("there is enough");
        assert_eq!([train.rows(), validation.rows()], [7, 1]);
        let document = validation.store().shape(validation.row(0)).expect("it can be read").0;
        let row = other_row(&validation, document, &mut StdRng::seed_from_u64(4)).expect("there is another document");
        assert_ne!(validation.store().shape(row).expect("it can be read").0, document);
    }
}
