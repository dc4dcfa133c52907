use std::borrow::Cow;
use std::ops::Range;

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use kiln_bert::Bert;
use kiln_eval::{SplitReport, evaluate_tags};
use kiln_heads::{TagBatch, TokenClassifier};
use kiln_metrics::cross_entropy;
use kiln_predict::{Tags, inputs, tag};
use kiln_schema::{LabelId, LabelSet};
use kiln_tokenize::{Encoding, UnitWindow, lengths, pad};

use crate::targets::{right, weighted_loss};
use crate::{BatchLoss, TrainingSet};

/// Tagged texts in windows: a row is a window, and each unit is a target in the window that speaks for it.
#[derive(Clone, Debug)]
pub struct TaggedSet {
    texts: Vec<Vec<UnitWindow>>,
    /// Of each row: its text, and which of its windows.
    rows: Vec<(usize, usize)>,
    encodings: Vec<Encoding>,
    lengths: Vec<usize>,
    targets: Vec<Vec<LabelId>>,
    labels: LabelSet,
    pad_token_id: u32,
    all_tokens: bool,
    class_weights: Option<Vec<f32>>,
}

impl TaggedSet {
    /// # Panics
    /// When there is not one list of tags for each text.
    pub fn new(texts: Vec<Vec<UnitWindow>>, targets: Vec<Vec<LabelId>>, labels: LabelSet, pad_token_id: u32) -> Self {
        assert_eq!(texts.len(), targets.len(), "tags for each text");
        let row = |(text, windows): (usize, &Vec<UnitWindow>)| (0..windows.len()).map(move |at| (text, at)).collect();
        let rows: Vec<(usize, usize)> = texts.iter().enumerate().flat_map(|text| -> Vec<_> { row(text) }).collect();
        let encodings: Vec<Encoding> = rows.iter().map(|&(text, at)| texts[text][at].encoding.clone()).collect();
        Self {
            lengths: lengths(&encodings),
            texts,
            rows,
            encodings,
            targets,
            labels,
            pad_token_id,
            all_tokens: false,
            class_weights: None,
        }
    }

    /// The same, with the loss on every token of a unit, not on its first alone. It is not for a model with a field.
    pub fn with_all_tokens(self) -> Self {
        Self { all_tokens: true, ..self }
    }

    /// The same, with the loss of a tag times its weight, of which there is one for each. It is not for a model with a field.
    pub fn with_class_weights(self, class_weights: Vec<f32>) -> Self {
        Self { class_weights: Some(class_weights), ..self }
    }

    /// What the loss is made of in a row: tokens and their tags.
    fn marked(&self, row: usize) -> Vec<(usize, LabelId)> {
        let UnitWindow { units, end, own, .. } = self.window(row);
        let ends = units.iter().skip(1).map(|(_, first)| *first).chain([*end]);
        let spans = units.iter().zip(ends).filter(|((unit, _), _)| own.contains(unit));
        let tokens = |((&(_, first), end), &tag): ((&(usize, usize), usize), &LabelId)| {
            let end = if self.all_tokens { end } else { first + 1 };
            (first..end).map(move |token| (token, tag))
        };
        spans.zip(self.tags(row)).flat_map(tokens).collect()
    }

    fn window(&self, row: usize) -> &UnitWindow {
        let (text, at) = self.rows[row];
        &self.texts[text][at]
    }

    /// The tags of the units that a row speaks for.
    fn tags(&self, row: usize) -> &[LabelId] {
        &self.targets[self.rows[row].0][self.window(row).own.clone()]
    }

    /// The units' logits as a rectangle with its tags, for a field: rows without a unit are left out.
    fn sequences(&self, logits: Tensor<2>, rows: &[usize], device: &Device) -> (Tensor<3>, TagBatch) {
        let [_, num_labels] = logits.dims();
        let counts: Vec<usize> = rows.iter().map(|&row| self.tags(row).len()).filter(|count| *count > 0).collect();
        let (batch, most) = (counts.len(), counts.iter().copied().max().unwrap_or(0));
        let (mut places, mut tags, mut units) = (Vec::new(), Vec::new(), Vec::new());
        let mut first = 0;
        for row in rows.iter().filter(|row| !self.tags(**row).is_empty()) {
            let these = self.tags(*row);
            for at in 0..most {
                // Behind its end a sequence repeats its last unit, which is masked.
                places.push((first + at.min(these.len() - 1)) as i32);
                tags.push(these.get(at).copied().unwrap_or(0) as i32);
                units.push(at < these.len());
            }
            first += these.len();
        }
        let cells = places.len();
        let places = Tensor::<1, Int>::from_data(TensorData::new(places, [cells]), device);
        let batch_tags = TagBatch {
            tags: Tensor::from_data(TensorData::new(tags, [batch, most]), device),
            units: Tensor::<2, Bool>::from_data(TensorData::new(units, [batch, most]), device),
        };
        (logits.select(0, places).reshape([batch, most, num_labels]), batch_tags)
    }
}

impl TrainingSet for TaggedSet {
    type Model = TokenClassifier;
    type Output = Tags;

    fn rows(&self) -> usize {
        self.lengths.len()
    }

    fn lengths(&self, rows: Range<usize>) -> Cow<'_, [usize]> {
        Cow::Borrowed(&self.lengths[rows])
    }

    /// Units, or all their tokens.
    fn weight(&self, row: usize) -> usize {
        if self.all_tokens { self.marked(row).len() } else { self.tags(row).len() }
    }

    fn loss(&self, model: &TokenClassifier, rows: &[usize], device: &Device) -> BatchLoss {
        let batch = pad(&self.encodings, rows, self.pad_token_id);
        let (mut tokens, mut targets) = (Vec::<i32>::new(), Vec::<i32>::new());
        for (at, &row) in rows.iter().enumerate() {
            for (token, tag) in self.marked(row) {
                tokens.push((at * batch.seq + token) as i32);
                targets.push(tag as i32);
            }
        }
        let count = tokens.len();
        let tokens = Tensor::<1, Int>::from_data(TensorData::new(tokens, [count]), device);
        let logits = model.forward(inputs(&batch, device), tokens);
        match &model.crf {
            Some(crf) if count > 0 => {
                let right = Some(right(logits.clone(), &targets));
                let (emissions, tags) = self.sequences(logits, rows, device);
                BatchLoss { sum: crf.loss_sum(emissions, tags), right }
            }
            _ => weighted_loss(logits, targets, self.class_weights.as_ref(), device),
        }
    }

    fn output(&self, model: &TokenClassifier, batch_size: usize, device: &Device) -> Tags {
        tag(model, &self.texts, self.pad_token_id, batch_size, device)
    }

    /// The loss is the tags' mean cross-entropy by the softmax of their own logits, whether there is a field or not.
    fn report(&self, output: &Tags) -> SplitReport {
        let loss = cross_entropy(&output.logits.concat(), self.labels.len(), &self.targets.concat());
        evaluate_tags(loss, &output.tags, &self.targets, &self.labels)
    }

    fn bert(model: &TokenClassifier) -> Option<&Bert> {
        Some(&model.bert)
    }
}

#[cfg(test)]
mod tests {
    use kiln_tokenize::Tokenizer;

    use super::*;

    #[test]
    fn a_word_s_loss_is_on_its_first_token_or_on_all() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../kiln-tokenize/tests/tiny");
        let tokenizer = Tokenizer::from_folder(folder.as_ref()).expect("the fixture is whole");
        let windows =
            tokenizer.encode_units("unable 房 unable", &[0..6, 7..10, 11..17]).expect("there is an unknown token");
        let labels = LabelSet::new(["O", "X"]).expect("two names");
        let set = TaggedSet::new(vec![windows], vec![vec![1, 0, 1]], labels, 0);
        assert_eq!((set.marked(0), set.weight(0)), (vec![(1, 1), (3, 0), (4, 1)], 3));
        let all = set.with_all_tokens();
        assert_eq!((all.marked(0), all.weight(0)), (vec![(1, 1), (2, 1), (3, 0), (4, 1), (5, 1)], 5));
    }
}
