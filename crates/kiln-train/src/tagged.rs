use std::borrow::Cow;
use std::ops::Range;

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use kiln_bert::Bert;
use kiln_eval::{SplitReport, evaluate_tags};
use kiln_heads::{TagBatch, TokenClassifier, cross_entropy_sum};
use kiln_metrics::cross_entropy;
use kiln_predict::{Tags, inputs, tag, unit_tokens};
use kiln_schema::{LabelId, LabelSet};
use kiln_tokenize::{Encoding, UnitWindow, lengths, pad};

use crate::targets::right;
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
}

impl TaggedSet {
    /// # Panics
    /// When there is not one list of tags for each text.
    pub fn new(texts: Vec<Vec<UnitWindow>>, targets: Vec<Vec<LabelId>>, labels: LabelSet, pad_token_id: u32) -> Self {
        assert_eq!(texts.len(), targets.len(), "tags for each text");
        let row = |(text, windows): (usize, &Vec<UnitWindow>)| (0..windows.len()).map(move |at| (text, at)).collect();
        let rows: Vec<(usize, usize)> = texts.iter().enumerate().flat_map(|text| -> Vec<_> { row(text) }).collect();
        let encodings: Vec<Encoding> = rows.iter().map(|&(text, at)| texts[text][at].encoding.clone()).collect();
        Self { lengths: lengths(&encodings), texts, rows, encodings, targets, labels, pad_token_id }
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

    /// Units.
    fn weight(&self, row: usize) -> usize {
        self.tags(row).len()
    }

    fn loss(&self, model: &TokenClassifier, rows: &[usize], device: &Device) -> BatchLoss {
        let batch = pad(&self.encodings, rows, self.pad_token_id);
        let tokens = unit_tokens(&batch, |row| self.window(row));
        let count = tokens.len();
        let targets: Vec<i32> = rows.iter().flat_map(|&row| self.tags(row)).map(|&tag| tag as i32).collect();
        let tokens = Tensor::<1, Int>::from_data(TensorData::new(tokens, [count]), device);
        let logits = model.forward(inputs(&batch, device), tokens);
        let right = Some(right(logits.clone(), &targets));
        let sum = match &model.crf {
            Some(crf) if count > 0 => {
                let (emissions, tags) = self.sequences(logits, rows, device);
                crf.loss_sum(emissions, tags)
            }
            _ => cross_entropy_sum(logits, Tensor::from_data(TensorData::new(targets, [count]), device)),
        };
        BatchLoss { sum, right }
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
