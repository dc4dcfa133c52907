use std::borrow::Cow;
use std::ops::Range;

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use kiln_eval::{SplitReport, TagSet, evaluate_tags};
use kiln_heads::{TagBatch, Tags, TokenClassifier, inputs, tag};
use kiln_metrics::cross_entropy;
use kiln_schema::{LabelId, LabelSet, TagScheme};
use kiln_tokenize::{Encoding, UnitWindow, lengths, pad};

use crate::targets::right;
use crate::{BatchLoss, Comparison, Dataset, EvaluationSet, LabelLoss, LogitSet, TrainingSet};

/// Tagged texts in windows. A row is a window, and each unit is a target in the window that owns it.
#[derive(Clone, Debug)]
pub struct TaggedSet {
    texts: Vec<Vec<UnitWindow>>,
    rows: Vec<Row>,
    encodings: Vec<Encoding>,
    lengths: Vec<usize>,
    targets: Vec<Vec<LabelId>>,
    labels: LabelSet,
    scheme: TagScheme,
    pad_token_id: u32,
    all_tokens: bool,
    label_loss: LabelLoss,
}

/// A window of a text.
#[derive(Clone, Copy, Debug)]
struct Row {
    text: usize,
    /// The index of the window within the text.
    window: usize,
}

/// A token that contributes to the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Target {
    /// Its position in the window.
    token: usize,
    tag: LabelId,
}

impl TaggedSet {
    /// Texts in windows, with the tag of each unit.
    ///
    /// # Panics
    /// When there is not one list of tags for each text.
    pub fn new(texts: Vec<Vec<UnitWindow>>, targets: Vec<Vec<LabelId>>, tags: TagSet<'_>, pad_token_id: u32) -> Self {
        assert_eq!(texts.len(), targets.len(), "tags for each text");
        let rows_of = |(text, windows): (usize, &Vec<UnitWindow>)| {
            (0..windows.len()).map(|window| Row { text, window }).collect::<Vec<_>>()
        };
        let rows: Vec<Row> = texts.iter().enumerate().flat_map(rows_of).collect();
        let encodings: Vec<Encoding> = texts.iter().flatten().map(|window| window.encoding.clone()).collect();
        Self {
            lengths: lengths(&encodings),
            texts,
            rows,
            encodings,
            targets,
            labels: tags.labels.clone(),
            scheme: tags.scheme,
            pad_token_id,
            all_tokens: false,
            label_loss: LabelLoss::default(),
        }
    }

    /// Computes the loss on every token of a unit instead of only the first. A model with a CRF does not support this.
    pub fn with_all_tokens(self) -> Self {
        Self { all_tokens: true, ..self }
    }

    /// Sets a variant of the cross-entropy loss, such as class weights. A model with a CRF ignores it.
    pub fn with_label_loss(self, label_loss: LabelLoss) -> Self {
        Self { label_loss, ..self }
    }

    /// The tokens of a row that contribute to the loss.
    fn row_targets(&self, row: usize) -> Vec<Target> {
        let UnitWindow { units, end, own, .. } = self.window(row);
        let mut targets = Vec::new();
        for (at, &(unit, first)) in units.iter().enumerate().filter(|(_, (unit, _))| own.contains(unit)) {
            let next = units.get(at + 1).map_or(*end, |&(_, next)| next);
            let end = if self.all_tokens { next } else { first + 1 };
            let tag = self.targets[self.rows[row].text][unit];
            targets.extend((first..end).map(|token| Target { token, tag }));
        }
        targets
    }

    fn window(&self, row: usize) -> &UnitWindow {
        let Row { text, window } = self.rows[row];
        &self.texts[text][window]
    }

    /// The tags of the units that a row owns.
    fn tags(&self, row: usize) -> &[LabelId] {
        &self.targets[self.rows[row].text][self.window(row).own.clone()]
    }

    /// The logits and tags of the units as a padded batch of sequences, for a CRF. Rows without a unit are left out.
    fn sequences(&self, logits: Tensor<2>, rows: &[usize], device: &Device) -> (Tensor<3>, TagBatch) {
        let [_, num_labels] = logits.dims();
        let rows: Vec<usize> = rows.iter().copied().filter(|&row| !self.tags(row).is_empty()).collect();
        let (batch, longest) = (rows.len(), rows.iter().map(|&row| self.tags(row).len()).max().unwrap_or(0));
        let (mut places, mut tags, mut units) = (Vec::new(), Vec::new(), Vec::new());
        let mut first = 0;
        for &row in &rows {
            let row_tags = self.tags(row);
            for at in 0..longest {
                // The padding of a sequence repeats its last unit, and is masked.
                places.push((first + at.min(row_tags.len() - 1)) as i32);
                tags.push(row_tags.get(at).copied().unwrap_or(0) as i32);
                units.push(at < row_tags.len());
            }
            first += row_tags.len();
        }
        let cells = places.len();
        let places = Tensor::<1, Int>::from_data(TensorData::new(places, [cells]), device);
        let flags = |flag: &dyn Fn(usize) -> bool| {
            let flags: Vec<f32> = rows.iter().map(|&row| f32::from(u8::from(flag(row)))).collect();
            Tensor::<1>::from_data(TensorData::new(flags, [batch]), device)
        };
        let batch_tags = TagBatch {
            tags: Tensor::from_data(TensorData::new(tags, [batch, longest]), device),
            units: Tensor::<2, Bool>::from_data(TensorData::new(units, [batch, longest]), device),
            begins: flags(&|row| self.window(row).own.start == 0),
            ends: flags(&|row| self.window(row).own.end == self.targets[self.rows[row].text].len()),
        };
        (logits.select(0, places).reshape([batch, longest, num_labels]), batch_tags)
    }
}

impl Dataset for TaggedSet {
    fn rows(&self) -> usize {
        self.lengths.len()
    }

    fn lengths(&self, rows: Range<usize>) -> Cow<'_, [usize]> {
        Cow::Borrowed(&self.lengths[rows])
    }
}

impl TrainingSet for TaggedSet {
    type Model = TokenClassifier;

    /// The number of owned units or, with [`TaggedSet::with_all_tokens`], of their tokens.
    fn weight(&self, row: usize) -> usize {
        if self.all_tokens { self.row_targets(row).len() } else { self.tags(row).len() }
    }

    fn loss(&self, model: &TokenClassifier, rows: &[usize], device: &Device) -> BatchLoss {
        self.labels_loss(model, self.logits(model, rows, device), rows, device)
    }
}

/// For a model with a CRF, the logits are those of the units, without the transition scores of the CRF.
impl LogitSet for TaggedSet {
    fn logits(&self, model: &TokenClassifier, rows: &[usize], device: &Device) -> Tensor<2> {
        let batch = pad(&self.encodings, rows, self.pad_token_id);
        let tokens_of = |(at, &row): (usize, &usize)| -> Vec<i32> {
            self.row_targets(row).into_iter().map(|target| (at * batch.seq + target.token) as i32).collect()
        };
        let tokens: Vec<i32> = rows.iter().enumerate().flat_map(tokens_of).collect();
        let count = tokens.len();
        let tokens = Tensor::<1, Int>::from_data(TensorData::new(tokens, [count]), device);
        model.forward(inputs(&batch, device), tokens)
    }

    fn labels_loss(&self, model: &TokenClassifier, logits: Tensor<2>, rows: &[usize], device: &Device) -> BatchLoss {
        let targets: Vec<i32> =
            rows.iter().flat_map(|&row| self.row_targets(row)).map(|target| target.tag as i32).collect();
        match &model.crf {
            Some(crf) if !targets.is_empty() => {
                let right = Some(right(logits.clone(), &targets));
                let (emissions, tags) = self.sequences(logits, rows, device);
                BatchLoss { sum: crf.loss_sum(emissions, tags), right }
            }
            _ => self.label_loss.of(logits, targets, device),
        }
    }

    fn logits_shape(&self, row: usize) -> [usize; 2] {
        [self.weight(row), self.labels.len()]
    }

    fn logit_tokens(&self, row: usize) -> Vec<usize> {
        self.row_targets(row).into_iter().map(|target| target.token).collect()
    }

    fn comparison(&self) -> Comparison {
        Comparison::Softmax
    }

    fn encodings(&self) -> &[Encoding] {
        &self.encodings
    }
}

impl EvaluationSet<TokenClassifier> for TaggedSet {
    type Output = Tags;

    fn output(&self, model: &TokenClassifier, batch_size: usize, device: &Device) -> Tags {
        tag(model, &self.texts, self.pad_token_id, batch_size, device)
    }

    /// The loss is the mean cross-entropy of the tags, by the softmax of the units' logits, even for a model with a CRF.
    fn report(&self, output: &Tags) -> Result<SplitReport, kiln_eval::Error> {
        let loss = cross_entropy(&output.logits.concat(), self.labels.len(), &self.targets.concat());
        let tags = TagSet { labels: &self.labels, scheme: self.scheme };
        evaluate_tags(loss, &output.tags, &self.targets, tags)
    }
}

#[cfg(test)]
mod tests {
    use kiln_backend::{Backend, Flex};
    use kiln_tokenize::{Tokenizer, characters};

    use super::*;

    #[test]
    fn a_word_s_loss_is_on_its_first_token_or_on_all() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../kiln-tokenize/tests/tiny");
        let tokenizer = Tokenizer::from_folder(folder.as_ref()).expect("the fixture is whole");
        let windows =
            tokenizer.encode_units("unable 房 unable", &[0..6, 7..10, 11..17]).expect("there is an unknown token");
        let labels = LabelSet::new(["O", "X"]).expect("two names");
        let tags = TagSet { labels: &labels, scheme: TagScheme::Plain };
        let set = TaggedSet::new(vec![windows], vec![vec![1, 0, 1]], tags, 0);
        let tokens = |set: &TaggedSet| -> Vec<(usize, LabelId)> {
            set.row_targets(0).into_iter().map(|Target { token, tag }| (token, tag)).collect()
        };
        assert_eq!((tokens(&set), set.weight(0)), (vec![(1, 1), (3, 0), (4, 1)], 3));
        let all = set.with_all_tokens();
        assert_eq!((tokens(&all), all.weight(0)), (vec![(1, 1), (2, 1), (3, 0), (4, 1), (5, 1)], 5));
    }

    /// Start and end transitions apply to a text, not to each of its windows.
    #[test]
    fn only_a_text_s_own_ends_begin_and_end_it() {
        let device = Flex::device(0);
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../kiln-tokenize/tests/tiny");
        let tokenizer = Tokenizer::from_folder(folder.as_ref()).expect("the fixture is whole");
        let tokenizer = tokenizer.with_max_length(6).expect("it is enough");
        let texts = ["房间房间房间房间房间", "房"];
        let windows: Vec<_> = texts.map(|text| tokenizer.encode_units(text, &characters(text)).expect("known")).into();
        let rows: Vec<usize> = (0..windows.iter().map(Vec::len).sum()).collect();
        assert!(rows.len() > 3, "the first text has several windows");
        let labels = LabelSet::new(["B", "E"]).expect("two names");
        let tags = TagSet { labels: &labels, scheme: TagScheme::Segmentation };
        let set = TaggedSet::new(windows, vec![[0, 1].repeat(5), vec![0]], tags, 0);
        let (_, batch) = set.sequences(Tensor::zeros([11, 2], &device), &rows, &device);
        let flags = |flags: Tensor<1>| flags.into_data().try_into_vec::<f32>().expect("it is f32");
        let inner = vec![0.0; rows.len() - 2];
        assert_eq!(flags(batch.begins), [&[1.0], inner.as_slice(), &[1.0]].concat());
        assert_eq!(flags(batch.ends), [inner.as_slice(), &[1.0, 1.0]].concat());
    }
}
