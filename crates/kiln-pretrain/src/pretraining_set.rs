use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use burn::tensor::{Device, Int, Tensor, TensorData};
use kiln_eval::{Counts, SplitReport, evaluate_masked};
use kiln_heads::{MaskedLm, MaskedLmOutput, cross_entropy_sum, inputs};
use kiln_tokenize::{Encoding, by_length, pad};
use kiln_train::{BatchLoss, Dataset, EvaluationSet, TrainingSet};

use crate::drawing::check_documents;
use crate::{Distillation, Drawing, Drawn, Error, TokenStore};

/// The rows of a store, masked anew in each epoch.
#[derive(Clone, Debug)]
pub struct PretrainingSet {
    store: Rc<TokenStore>,
    drawing: Rc<Drawing>,
    part: Part,
    distillation: Option<Rc<Distillation>>,
    /// Rows that were drawn to count their targets. The loss takes them from here.
    counted: RefCell<BTreeMap<usize, Drawn>>,
}

/// The rows of a store that belong to a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    All,
    /// All rows except one in `every`.
    Kept {
        every: usize,
    },
    /// One row in `every`.
    HeldBack {
        every: usize,
    },
}

/// At least this many rows per row that is held back for validation.
const HOLD_BACK: usize = 50;
/// About the most rows that are held back for validation.
const ENOUGH: usize = 2_000;

/// Splits a store into a training set and a validation set.
///
/// The validation rows are those of `validation`, or one row in 50 of `store`, about 2,000 at most. Their order and masks
/// are the same at each validation.
///
/// # Errors
/// When there are too few rows, or next sentences are enabled and fewer than two documents have rows.
pub fn split(
    store: TokenStore,
    validation: Option<TokenStore>,
    drawing: Drawing,
) -> Result<(PretrainingSet, PretrainingSet), Error> {
    if let Some(validation) = validation {
        let train = PretrainingSet::whole(store, drawing)?;
        let validation = PretrainingSet::of(Rc::new(validation), train.drawing.clone(), Part::All, 1)?;
        return Ok((train, validation));
    }
    let rows = store.rows();
    let every = HOLD_BACK.max(rows / ENOUGH).min(rows);
    let train = PretrainingSet::of(Rc::new(store), Rc::new(drawing), Part::Kept { every }, 2)?;
    let validation = PretrainingSet { part: Part::HeldBack { every }, ..train.clone() };
    Ok((train, validation))
}

impl PretrainingSet {
    /// All rows of a store.
    ///
    /// # Errors
    /// When there are no rows, or next sentences are enabled and fewer than two documents have rows.
    pub fn whole(store: TokenStore, drawing: Drawing) -> Result<Self, Error> {
        Self::of(Rc::new(store), Rc::new(drawing), Part::All, 1)
    }

    fn of(store: Rc<TokenStore>, drawing: Rc<Drawing>, part: Part, expected: usize) -> Result<Self, Error> {
        if store.rows() < expected {
            return Err(Error::TooFewRows { rows: store.rows(), expected });
        }
        let set = Self { store, drawing, part, distillation: None, counted: RefCell::default() };
        if set.drawing.next_sentence {
            check_documents(&set)?;
        }
        Ok(set)
    }

    /// Adds a teacher's hidden states to the loss. The model has to keep the outputs of its layers in training.
    ///
    /// # Panics
    /// When next sentences are enabled: the teacher's states belong to whole rows of the store.
    pub fn with_distillation(self, distillation: Distillation) -> Self {
        assert!(!self.drawing.next_sentence, "a teacher has read the store's rows, not segments of two");
        Self { distillation: Some(Rc::new(distillation)), ..self }
    }

    /// The store of the rows.
    pub fn store(&self) -> &TokenStore {
        &self.store
    }

    /// The index in the store of the row at a position of this set.
    pub(crate) fn row(&self, index: usize) -> usize {
        match self.part {
            Part::All => index,
            Part::Kept { every } => index + index / (every - 1),
            Part::HeldBack { every } => index * every + every - 1,
        }
    }

    /// The index in the store of the row with a number. Numbers continue from epoch to epoch; each epoch has its own order.
    fn numbered(&self, number: usize) -> usize {
        let count = self.rows();
        self.row(self.drawing.order(number % count, count, number / count))
    }

    /// Draws a row with its masks. Numbers continue from epoch to epoch.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn draw(&self, number: usize) -> Result<Drawn, Error> {
        self.drawing.draw(self, self.numbered(number), number)
    }

    fn drawn(&self, numbers: &[usize]) -> Vec<Drawn> {
        let mut counted = self.counted.borrow_mut();
        let mut drawn = |number: &usize| {
            counted.remove(number).unwrap_or_else(|| self.draw(*number).expect("the store has been read before"))
        };
        numbers.iter().map(&mut drawn).collect()
    }

    /// Runs the model over rows, and returns its output with the targets.
    fn forward(&self, model: &MaskedLm, drawn: Vec<Drawn>, device: &Device) -> Asked {
        let (mut encodings, mut targets, mut next) = (Vec::<Encoding>::new(), Vec::new(), Vec::new());
        for drawn in drawn {
            encodings.push(drawn.encoding);
            targets.push(drawn.targets);
            next.push(i32::from(drawn.is_random));
        }
        let rows: Vec<usize> = (0..encodings.len()).collect();
        let batch = pad(&encodings, &rows, self.drawing.tokenizer.pad_token_id());
        let places = targets.iter().enumerate().flat_map(|(row, targets)| {
            let start = row * batch.seq;
            targets.iter().map(move |&(place, _)| (start + place) as i32)
        });
        let ids = targets.iter().flatten().map(|&(_, id)| id.cast_signed());
        let tensor = |ids: Vec<i32>| {
            let count = ids.len();
            Tensor::<1, Int>::from_data(TensorData::new(ids, [count]), device)
        };
        let output = model.forward(inputs(&batch, device), tensor(places.collect()));
        Asked { output, targets: tensor(ids.collect()), next: tensor(next) }
    }
}

/// A model's output with its targets.
struct Asked {
    output: MaskedLmOutput,
    targets: Tensor<1, Int>,
    next: Tensor<1, Int>,
}

/// Counts of a model's correct predictions, and its losses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Number of masked tokens.
    pub masked: usize,
    /// Number of masked tokens that were predicted correctly.
    pub masked_right: usize,
    /// Sum of the cross-entropies of the masked tokens.
    pub masked_loss_sum: f64,
    /// Number of rows.
    pub rows: usize,
    /// Number of rows with a correct next-sentence prediction; `None` without next sentences.
    pub next_right: Option<usize>,
    /// Sum of the cross-entropies of the next-sentence predictions.
    pub next_loss_sum: f64,
}

fn right(logits: Tensor<2>, targets: Tensor<1, Int>) -> usize {
    let [count, _] = logits.dims();
    let predictions = logits.inner().argmax(1).reshape([count]);
    predictions.equal(targets.inner()).int().sum().into_scalar::<i64>() as usize
}

impl Dataset for PretrainingSet {
    const DRAWN: bool = true;

    fn rows(&self) -> usize {
        let rows = self.store.rows();
        match self.part {
            Part::All => rows,
            Part::Kept { every } => rows - rows / every,
            Part::HeldBack { every } => rows / every,
        }
    }

    /// Upper bounds of the lengths: a segment of another document may be shorter.
    fn lengths(&self, rows: Range<usize>) -> Cow<'_, [usize]> {
        let special = self.drawing.tokenizer.num_special_tokens(self.drawing.next_sentence);
        let length = |number| self.store.shape(self.numbered(number)).expect("the store has been read before").1;
        Cow::Owned(rows.map(|number| length(number) + special).collect())
    }

    fn tokens(&self) -> usize {
        (0..self.rows()).map(|row| self.lengths(row..row + 1)[0]).sum()
    }
}

impl TrainingSet for PretrainingSet {
    type Model = MaskedLm;

    /// The number of masked tokens. The drawn row is kept, so that [`TrainingSet::loss`] does not draw it again.
    fn weight(&self, row: usize) -> usize {
        let drawn = self.draw(row).expect("the store has been read before");
        let targets = drawn.targets.len();
        self.counted.borrow_mut().insert(row, drawn);
        targets
    }

    /// The mean loss of masked tokens and the mean next-sentence loss have equal weight, so the latter is scaled to a sum.
    fn loss(&self, model: &MaskedLm, rows: &[usize], device: &Device) -> BatchLoss {
        let drawn = self.drawn(rows);
        let first: Vec<usize> = drawn.iter().map(|drawn| drawn.first).collect();
        let Asked { output, targets, next } = self.forward(model, drawn, device);
        let [masked] = targets.dims();
        let right = Some(right(output.predictions.clone(), targets.clone()));
        let mut sum = cross_entropy_sum(output.predictions, targets);
        if let Some(logits) = output.seq_relationship {
            sum = sum + cross_entropy_sum(logits, next) * (masked as f64 / rows.len() as f64);
        }
        if let Some(Distillation { states, alpha }) = self.distillation.as_deref() {
            let places = rows.iter().map(|&number| self.numbered(number)).zip(first);
            let of_states = states.loss(model, &places.collect::<Vec<_>>(), device) * masked as f64;
            sum = sum * *alpha + of_states * (1.0 - alpha);
        }
        BatchLoss { sum, right }
    }
}

impl EvaluationSet<MaskedLm> for PretrainingSet {
    type Output = Tally;

    fn output(&self, model: &MaskedLm, batch_size: usize, device: &Device) -> Tally {
        let mut tally = Tally::default();
        let block = batch_size.saturating_mul(BLOCK_BATCHES);
        for start in (0..self.rows()).step_by(block) {
            let lengths = self.lengths(start..self.rows().min(start.saturating_add(block)));
            for batch in by_length(&lengths, batch_size) {
                let numbers: Vec<usize> = batch.iter().map(|row| start + row).collect();
                let Asked { output, targets, next } = self.forward(model, self.drawn(&numbers), device);
                tally.masked += targets.dims()[0];
                tally.masked_right += right(output.predictions.clone(), targets.clone());
                tally.masked_loss_sum += cross_entropy_sum(output.predictions, targets).into_scalar::<f64>();
                tally.rows += numbers.len();
                if let Some(logits) = output.seq_relationship {
                    *tally.next_right.get_or_insert(0) += right(logits.clone(), next.clone());
                    tally.next_loss_sum += cross_entropy_sum(logits, next).into_scalar::<f64>();
                }
            }
        }
        tally
    }

    fn report(&self, tally: &Tally) -> Result<SplitReport, kiln_eval::Error> {
        let masked = Counts { correct: tally.masked_right, total: tally.masked, loss_sum: tally.masked_loss_sum };
        let next = |correct| Counts { correct, total: tally.rows, loss_sum: tally.next_loss_sum };
        evaluate_masked(masked, tally.next_right.map(next), tally.rows)
    }
}

/// Number of batches whose rows are sorted by length together.
const BLOCK_BATCHES: usize = 16;

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashSet;

    use kiln_dataset::Passage;
    use kiln_tokenize::{Tokenizer, VocabularyConfig};

    use super::*;
    use crate::{MaskingConfig, TokenStoreConfig};

    /// Each document has its own character, in four sentences of six.
    pub(crate) fn sets(documents: u32, next_sentence: bool) -> Result<(PretrainingSet, PretrainingSet), Error> {
        let character = |document| char::from_u32(0x4e00 + document).expect("a character of Chinese");
        let sentence = |document| character(document).to_string().repeat(6);
        let config = VocabularyConfig { size: documents as usize + 6, min_count: 1, lower_case: true };
        let tokenizer: Tokenizer = config.train((0..documents.max(1)).map(sentence)).expect("there are characters");
        let passages = (0..documents).flat_map(|document| {
            let sentences = (0..4).map(move |_| Ok(Passage::Sentence(sentence(document))));
            sentences.chain([Ok(Passage::End)])
        });
        let store = TokenStoreConfig { folder: std::env::temp_dir(), max_tokens: 12 };
        let store = store.build(passages, &tokenizer).expect("the temporary folder is writable");
        let masking = MaskingConfig::default().init(&tokenizer).expect("there is a mask token");
        split(store, None, Drawing { tokenizer, masking, next_sentence, seed: 7 })
    }

    #[test]
    fn an_epoch_draws_each_row_once_and_the_next_masks_it_anew() {
        let (train, validation) = sets(500, false).expect("there is enough");
        assert_eq!((train.rows(), validation.rows(), train.tokens()), (980, 20, 980 * 14));
        let rows = |set: &PretrainingSet, epoch: usize| -> Vec<usize> {
            (epoch * set.rows()..(epoch + 1) * set.rows()).map(|number| set.numbered(number)).collect()
        };
        let all: HashSet<usize> = rows(&train, 0).into_iter().chain(rows(&validation, 0)).collect();
        assert_eq!(all.len(), 1_000, "no row is on both sides");
        assert_ne!(rows(&train, 0), rows(&train, 1));
        let masks = |epoch: usize| -> HashSet<(usize, Vec<usize>)> {
            let numbers = epoch * 980..(epoch + 1) * 980;
            numbers
                .map(|number| {
                    let drawn = train.draw(number).expect("it can be read");
                    (train.numbered(number), drawn.targets.iter().map(|(place, _)| *place).collect())
                })
                .collect()
        };
        let same = masks(0).intersection(&masks(1)).count();
        assert!(same < 60, "of 66 choices of two places: {same} of 980 are the same");
        assert_eq!(train.draw(3).expect("it can be read"), train.draw(3).expect("it can be read"));
    }

    #[test]
    fn half_of_the_second_segments_are_of_another_document() {
        let (train, _) = sets(500, true).expect("there is enough");
        let (mut random, mut masked, mut tokens) = (0, 0, 0);
        let numbers = 0..10 * train.rows();
        for number in numbers.clone() {
            let drawn = train.draw(number).expect("it can be read");
            let before: HashSet<u32> = drawn.targets.iter().map(|(_, id)| *id).collect();
            let first_end = drawn.encoding.token_type_ids.iter().position(|&kind| kind == 1).expect("two segments");
            let of = |kind: u32| -> HashSet<u32> {
                let ids = drawn.encoding.input_ids.iter().zip(&drawn.encoding.token_type_ids).enumerate();
                let told: Vec<usize> = drawn.targets.iter().map(|(place, _)| *place).collect();
                ids.filter(|(at, (id, of))| **of == kind && **id > 4 && !told.contains(at))
                    .map(|(_, (id, _))| *id)
                    .collect()
            };
            assert!(first_end > 2 && !before.is_empty());
            let apart = of(0).is_disjoint(&of(1));
            assert_eq!(apart, drawn.is_random, "{drawn:?}");
            random += usize::from(drawn.is_random);
            masked += drawn.targets.len();
            tokens += drawn.encoding.input_ids.len() - 3;
        }
        let share = random as f64 / numbers.len() as f64;
        assert!((share - 0.5).abs() < 0.02, "{share}");
        assert!((masked as f64 / tokens as f64 - 0.15).abs() < 0.02, "2 of 12: {masked} of {tokens}");
    }

    #[test]
    fn a_row_that_was_counted_is_not_drawn_again() {
        let (train, _) = sets(500, true).expect("there is enough");
        let expected = train.draw(3).expect("it can be read");
        assert_eq!(train.weight(3), expected.targets.len());
        assert_eq!(train.counted.borrow().keys().collect::<Vec<_>>(), [&3], "it is kept");
        // The loss gets the row that was kept, even one that was changed.
        let marked = Drawn { is_random: !expected.is_random, ..expected.clone() };
        train.counted.borrow_mut().insert(3, marked.clone());
        assert_eq!(train.drawn(&[3]), [marked]);
        assert!(train.counted.borrow().is_empty(), "and taken");
        assert_eq!(train.drawn(&[3]), [expected]);
    }

    /// Documents with the given numbers of sentences, in rows of up to 12 tokens.
    fn set_of(documents: &[usize], next_sentence: bool) -> Result<PretrainingSet, Error> {
        let config = VocabularyConfig { size: 8, min_count: 1, lower_case: true };
        let tokenizer: Tokenizer = config.train(["房"].into_iter()).expect("there is a character");
        let passages = documents.iter().flat_map(|&sentences| {
            std::iter::repeat_with(|| Ok(Passage::Sentence("房".to_owned()))).take(sentences).chain([Ok(Passage::End)])
        });
        let store = TokenStoreConfig { folder: std::env::temp_dir(), max_tokens: 12 };
        let store = store.build(passages, &tokenizer).expect("the temporary folder is writable");
        let masking = MaskingConfig::default().init(&tokenizer).expect("there is a mask token");
        PretrainingSet::whole(store, Drawing { tokenizer, masking, next_sentence, seed: 7 })
    }

    /// A document with one token has no row, so no segment can be drawn from it.
    #[test]
    fn a_document_without_a_row_is_no_other_document() {
        let error = set_of(&[60, 1], true).expect_err("one document has rows").to_string();
        assert!(error.contains("found one such document among 2") && error.contains("blank line"), "{error}");
        let set = set_of(&[60, 1, 2], true).expect("two documents have rows");
        for number in 0..set.rows() {
            set.draw(number).expect("there is another document");
        }
        assert_eq!(set_of(&[60, 1], false).expect("no other document is needed").rows(), 5);
    }

    #[test]
    fn too_little_text_is_refused() {
        assert!(sets(1, true).expect_err("no other document").to_string().contains("next_sentence = false"));
        assert!(sets(0, false).expect_err("nothing").to_string().contains("0 rows"));
    }
}
