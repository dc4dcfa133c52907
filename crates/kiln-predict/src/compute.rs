use burn::tensor::{Device, Tensor, TensorData};
use kiln_heads::{
    Calibration, MaskedLm, Network, QuestionAnswerer, SequenceClassifier, TokenClassifier, answer_logits, in_batches,
    inputs, tag,
};
use kiln_schema::{LabelSet, ProblemType, TagScheme};
use kiln_tokenize::{ContextWindow, Encoding, Tokenizer, UnitWindow, by_length, lengths, pad};

use crate::masks::{most_probable, places};
use crate::prediction::SequenceHead;
use crate::predictor::check_finite;
use crate::prepared::{OTHER_TASK, Rows};
use crate::tags::TaggedUnits;
use crate::{
    Error, FilledPrediction, MaskPrediction, PIPELINE_ANSWER_LENGTH, Prediction, Predictor, Prepared, pipeline_answer,
};

/// A prediction and its logits.
#[derive(Clone, Debug, PartialEq)]
pub struct Computed {
    /// The prediction for the text.
    pub prediction: Prediction,
    /// The logits before calibration: `[num_labels]` for sequence classification, `[units, num_labels]` for tags, the start
    /// and end logits of each window for question answering, and empty for masked words.
    pub logits: Vec<f32>,
}

impl Predictor {
    /// Predicts for texts from [`Predictor::prepare`], in their order. Each text has its own result: logits that are not
    /// finite are an error for that text only.
    ///
    /// # Panics
    /// When a text was prepared by a model of another task.
    pub fn compute(&self, texts: &[&Prepared]) -> Vec<Result<Computed, Error>> {
        let batches = Batches {
            texts,
            tokenizer: self.tokenizer(),
            batch_size: self.batch_size,
            top: self.top,
            calibration: self.calibration(),
            device: &self.device,
        };
        match self.network() {
            Network::SequenceClassification { model, labels, problem_type } => {
                batches.classify(model, labels, *problem_type)
            }
            Network::TokenClassification { model, labels, tag_scheme, .. } => batches.tag(model, labels, *tag_scheme),
            Network::QuestionAnswering { model } => batches.answer(model),
            Network::MaskedLm { model } => batches.fill(model),
        }
    }
}

/// Prepared texts, with the settings to compute them.
struct Batches<'a> {
    texts: &'a [&'a Prepared],
    tokenizer: &'a Tokenizer,
    batch_size: usize,
    top: usize,
    /// The calibration of the label probabilities.
    calibration: Option<&'a Calibration>,
    device: &'a Device,
}

impl Batches<'_> {
    fn pad_token_id(&self) -> u32 {
        self.tokenizer.pad_token_id()
    }

    /// The encoding of each text.
    fn whole(&self) -> Vec<Encoding> {
        self.texts.iter().map(|text| text.whole().clone()).collect()
    }

    fn classify(
        &self,
        model: &SequenceClassifier,
        labels: &LabelSet,
        problem_type: ProblemType,
    ) -> Vec<Result<Computed, Error>> {
        let encodings = self.whole();
        let logits = in_batches(&lengths(&encodings), self.batch_size, |rows| {
            model.forward(inputs(&pad(&encodings, rows, self.pad_token_id()), self.device))
        });
        let computed = |(text, logits): (&&Prepared, &[f32])| {
            check_finite(&text.text, logits)?;
            let texts = (text.text(), text.text_pair());
            let head = SequenceHead { labels, problem_type, calibration: self.calibration };
            let prediction = Prediction::of_sequence(texts, logits, head);
            Ok(Computed { prediction, logits: logits.to_vec() })
        };
        self.texts.iter().zip(logits.chunks(labels.len())).map(computed).collect()
    }

    fn tag(&self, model: &TokenClassifier, labels: &LabelSet, scheme: TagScheme) -> Vec<Result<Computed, Error>> {
        let windows = |text: &&'_ Prepared| -> Vec<UnitWindow> {
            match &text.rows {
                Rows::Units { windows, .. } => windows.clone(),
                Rows::Whole(_) | Rows::Context(_) => panic!("{OTHER_TASK}"),
            }
        };
        let windows: Vec<Vec<UnitWindow>> = self.texts.iter().map(windows).collect();
        let output = tag(model, &windows, self.pad_token_id(), self.batch_size, self.device);
        let computed = |(row, text): (usize, &&Prepared)| {
            check_finite(&text.text, &output.logits[row])?;
            let Rows::Units { units, .. } = &text.rows else { panic!("{OTHER_TASK}") };
            let (tags, scores) = (&output.tags[row], &output.scores[row]);
            let prediction = TaggedUnits { text: &text.text, units, tags, scores }.prediction(labels, scheme);
            Ok(Computed { prediction, logits: output.logits[row].clone() })
        };
        self.texts.iter().enumerate().map(computed).collect()
    }

    fn answer(&self, model: &QuestionAnswerer) -> Vec<Result<Computed, Error>> {
        let windows = |text: &&'_ Prepared| -> Vec<ContextWindow> {
            match &text.rows {
                Rows::Context(windows) => windows.clone(),
                Rows::Whole(_) | Rows::Units { .. } => panic!("{OTHER_TASK}"),
            }
        };
        let windows: Vec<Vec<ContextWindow>> = self.texts.iter().map(windows).collect();
        let all_windows: Vec<&ContextWindow> = windows.iter().flatten().collect();
        let logits = answer_logits(model, &all_windows, self.pad_token_id(), self.batch_size, self.device);
        let mut remaining = logits.as_slice();
        let mut answers = Vec::with_capacity(self.texts.len());
        for (text, windows) in self.texts.iter().zip(&windows) {
            let (window_logits, later) = remaining.split_at(windows.len());
            remaining = later;
            let pair = (text.text(), text.text_pair().unwrap_or_default());
            let answer = || Prediction::Answer(pipeline_answer(pair, windows, window_logits, PIPELINE_ANSWER_LENGTH));
            let logits: Vec<f32> = window_logits.iter().flatten().flatten().copied().collect();
            let finite = check_finite(pair.0, &logits);
            answers.push(finite.map(|()| Computed { prediction: answer(), logits }));
        }
        answers
    }

    fn fill(&self, model: &MaskedLm) -> Vec<Result<Computed, Error>> {
        let mask_token_id = self.tokenizer.mask_token_id().expect("`from_folder` has looked for it");
        let mask = self.tokenizer.token(mask_token_id).unwrap_or_default();
        let encodings = self.whole();
        let mut masks: Vec<Result<Vec<MaskPrediction>, Error>> = self.texts.iter().map(|_| Ok(Vec::new())).collect();
        for rows in by_length(&lengths(&encodings), self.batch_size) {
            let batch = pad(&encodings, &rows, self.pad_token_id());
            let places = places(&batch, &encodings, mask_token_id);
            let tokens: Vec<i32> = places.iter().map(|(_, place)| *place).collect();
            let count = tokens.len();
            let tokens = Tensor::from_data(TensorData::new(tokens, [count]), self.device);
            let logits = model.forward(inputs(&batch, self.device), tokens).predictions;
            let width = logits.dims()[1];
            let logits = logits.into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32");
            for ((row, _), logits) in places.iter().zip(logits.chunks(width)) {
                let text = self.texts[*row];
                let named = |id| [self.tokenizer.token(id).unwrap_or_default(), self.tokenizer.token_text(id)];
                let top = text.top.unwrap_or(self.top);
                let candidates = check_finite(&text.text, logits).map(|()| most_probable(logits, top, named));
                match (&mut masks[*row], candidates) {
                    (Ok(masks), Ok(candidates)) => masks.push(candidates),
                    (masks @ Ok(_), Err(error)) => *masks = Err(error),
                    (Err(_), _) => {}
                }
            }
        }
        let computed = |(text, masks): (&&Prepared, Result<Vec<MaskPrediction>, Error>)| {
            let prediction = Prediction::Filled(filled((text.text(), text.text_pair()), &mask, masks?));
            Ok(Computed { prediction, logits: Vec::new() })
        };
        self.texts.iter().zip(masks).map(computed).collect()
    }
}

/// Replaces each mask of a text by its most probable token.
fn filled((text, text_pair): (&str, Option<&str>), mask: &str, masks: Vec<MaskPrediction>) -> FilledPrediction {
    let mut parts = text.split(mask);
    let mut filled = parts.next().unwrap_or_default().to_owned();
    let mut found = masks.iter();
    for part in parts {
        let best = found.next().map(|mask| mask.tokens.first().map_or("", |token| token.text.as_str()));
        filled.push_str(best.unwrap_or(mask));
        filled.push_str(part);
    }
    FilledPrediction { text: text.to_owned(), text_pair: text_pair.map(str::to_owned), filled, masks }
}
