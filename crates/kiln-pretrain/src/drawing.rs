use kiln_tokenize::{Encoding, Tokenizer};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::permutation::{mix, permute};
use crate::{Error, Masking, TokenRow, TokenStore};

/// How a row of a store is turned into a masked row that a model is trained on.
#[derive(Clone, Debug)]
pub struct Drawing {
    /// Puts the special tokens around segments.
    pub tokenizer: Tokenizer,
    /// What is masked.
    pub masking: Masking,
    /// Whether rows have two segments, of which half the time the second does not follow the first.
    pub next_sentence: bool,
    /// Seed of everything that is drawn.
    pub seed: u64,
}

/// A row with its masks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// The masked row.
    pub encoding: Encoding,
    /// The position in it of the first token that is not a special one.
    pub first: usize,
    /// The positions in it that a model must predict, in order, and the ids that they had.
    pub targets: Vec<(usize, u32)>,
    /// Whether the second segment is of another document; false where there is none.
    pub is_random: bool,
}

impl Drawing {
    /// The row of a store that is drawn at place `index` of an epoch; each is drawn once.
    pub(crate) fn order(&self, index: usize, count: usize, epoch: usize) -> usize {
        permute(index as u64, count as u64, mix(self.seed ^ mix(epoch as u64 + 1))) as usize
    }

    /// Masks a row; `number` decides how, and is another one in each epoch.
    ///
    /// # Errors
    /// When the store cannot be read, or a sentence of another document is needed and there is none.
    pub fn draw(&self, store: &TokenStore, row: usize, number: usize) -> Result<Drawn, Error> {
        let random = &mut StdRng::seed_from_u64(mix(self.seed.wrapping_add(mix(number as u64 + 1))));
        let mut first = store.row(row)?;
        let (mut second, mut is_random) = (None, false);
        if self.next_sentence {
            let border = border(&first, random);
            let mut follows = first.tokens.split_off(border);
            is_random = random.random_bool(0.5);
            if is_random {
                follows = elsewhere(store, first.document, follows.len(), random)?;
            }
            second = Some(follows);
        }
        let (mut encoding, first_place, second_place) = self.tokenizer.assemble(&first.tokens, second.as_deref())?;
        let split = first.tokens.len();
        // Both segments are masked as one, and what was not there cannot be told.
        let mut ids = [first.tokens, second.unwrap_or_default()].concat();
        let place = |at: usize| if at < split { first_place + at } else { second_place + at - split };
        let targets = self.masking.mask(&mut ids, random).into_iter().map(|(at, id)| (place(at), id)).collect();
        for (at, id) in ids.into_iter().enumerate() {
            encoding.input_ids[place(at)] = id;
        }
        Ok(Drawn { encoding, first: first_place, targets, is_random })
    }
}

/// Where the second segment begins: at one of the sentences, or where there is but one, in its middle.
fn border(row: &TokenRow, random: &mut StdRng) -> usize {
    match row.starts.len() {
        0 | 1 => row.tokens.len() / 2,
        sentences => row.starts[random.random_range(1..sentences)],
    }
}

/// Tokens of another document, from the beginning of a sentence on: `length` of them, or fewer where it has fewer.
fn elsewhere(store: &TokenStore, document: u64, length: usize, random: &mut StdRng) -> Result<Vec<u32>, Error> {
    let row = other_row(store, document, random)?;
    let TokenRow { tokens, starts, .. } = store.row(row)?;
    let latest = tokens.len().saturating_sub(length);
    let fitting = starts.iter().take_while(|start| **start <= latest).count();
    let start = starts[random.random_range(0..fitting)];
    Ok(tokens[start..tokens.len().min(start + length)].to_vec())
}

/// A row of another document.
fn other_row(store: &TokenStore, document: u64, random: &mut StdRng) -> Result<usize, Error> {
    // With many documents few tries are needed. After the last try, the next row of another document is taken.
    const TRIES: usize = 32;
    let rows = store.rows();
    let mut row = random.random_range(0..rows);
    for _ in 0..TRIES {
        if store.shape(row)?.0 != document {
            return Ok(row);
        }
        row = random.random_range(0..rows);
    }
    for offset in 0..rows {
        let next = (row + offset) % rows;
        if store.shape(next)?.0 != document {
            return Ok(next);
        }
    }
    Err(Error::NoOtherDocument { with_rows: store.documents_with_rows(), documents: store.documents() })
}
