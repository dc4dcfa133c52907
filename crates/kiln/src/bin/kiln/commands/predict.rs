//! `kiln predict` and `kiln fill-mask`: one text, a file of any length, or an interactive prompt.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use burn::tensor::Device;
use kiln::fetch::fetch_model;
use kiln::{ModelFolders, UsageError, open_predictor};
use kiln_backend::Backend;
use kiln_files::FileWriter;
use kiln_predict::{Prediction, Predictor};
use kiln_schema::{ProblemType, Task};

use super::prompt::{self, in_words};
use crate::cli::{FillMaskArgs, PredictArgs, TextArgs};
use crate::console;
use crate::input::{Input, refuse_to_overwrite, warn_of_single_text};
use crate::observer::Console;

pub fn run<B: Backend>(arguments: &PredictArgs, json: bool, device: &Device) -> anyhow::Result<()> {
    let PredictArgs { model, texts, top_k, raw, min_score } = arguments;
    check_paths(texts)?;
    let folder = fetch_model(&model.model, &model.hub.options(), &mut Console::default())?;
    let adapter = model.adapter.folder();
    let folders = ModelFolders { model: &folder, adapter: adapter.as_deref() };
    let mut predictor = load::<B>(folders, texts, device)?;
    if *raw {
        predictor = predictor.without_calibration();
    }
    if min_score.is_some() && !has_one_label(&predictor) {
        bail!(UsageError(format!(
            "--min-score needs a model with one label per text, and the model's task is {}",
            predictor.task()
        )));
    }
    let folder = adapter.unwrap_or(folder);
    if let Some(top_k) = top_k {
        if predictor.task() == Task::MaskedLm {
            predictor = predictor.with_top(*top_k);
        } else if !has_labels(&predictor) {
            let message = format!(
                "--top-k needs a model that predicts labels or masked tokens, and the model's task is {}",
                predictor.task()
            );
            bail!(UsageError(message));
        }
    }
    Answers { predictor: &predictor, top_k: *top_k, min_score: *min_score, json }.answer_all(&folder, texts)
}

/// `kiln fill-mask`: predicts masked tokens, with a given number of candidates for each mask.
pub fn fill_mask<B: Backend>(arguments: &FillMaskArgs, json: bool, device: &Device) -> anyhow::Result<()> {
    let FillMaskArgs { model, adapter, hub, texts, top } = arguments;
    check_paths(texts)?;
    let folder = fetch_model(model, &hub.options(), &mut Console::default())?;
    let adapter = adapter.folder();
    let folders = ModelFolders { model: &folder, adapter: adapter.as_deref() };
    let predictor = load::<B>(folders, texts, device)?.with_top(*top);
    if predictor.task() != Task::MaskedLm {
        bail!("{}: the model's task is {}, expected masked-lm", folder.display(), predictor.task());
    }
    Answers { predictor: &predictor, top_k: None, min_score: None, json }.answer_all(&folder, texts)
}

fn check_paths(arguments: &TextArgs) -> anyhow::Result<()> {
    match (&arguments.file, &arguments.out) {
        (Some(file), Some(out)) => refuse_to_overwrite(out, std::slice::from_ref(file)),
        _ => Ok(()),
    }
}

fn load<B: Backend>(model: ModelFolders<'_>, arguments: &TextArgs, device: &Device) -> anyhow::Result<Predictor> {
    let predictor = open_predictor::<B>(model, arguments.precision.precision, device, &mut Console::default())?;
    Ok(predictor.with_batch_size(arguments.batch_size))
}

fn has_labels(predictor: &Predictor) -> bool {
    match predictor.network() {
        kiln_heads::Network::SequenceClassification { problem_type, .. } => *problem_type != ProblemType::Regression,
        _ => false,
    }
}

fn has_one_label(predictor: &Predictor) -> bool {
    match predictor.network() {
        kiln_heads::Network::SequenceClassification { problem_type, .. } => {
            *problem_type == ProblemType::SingleLabelClassification
        }
        _ => false,
    }
}

/// A model, and how its predictions are printed.
pub struct Answers<'a> {
    pub predictor: &'a Predictor,
    /// Maximum number of labels for each text.
    top_k: Option<usize>,
    /// Minimum probability of a label.
    min_score: Option<f64>,
    json: bool,
}

/// Minimum number of rows read and computed at a time: enough to fill batches with texts of similar length, few enough to
/// use little memory.
pub const CHUNK: usize = 1024;

impl Answers<'_> {
    fn answer_all(&self, folder: &Path, arguments: &TextArgs) -> anyhow::Result<()> {
        match (&arguments.text, &arguments.file) {
            (Some(text), _) => {
                if arguments.text_pair.is_none() {
                    warn_of_single_text(folder);
                }
                self.answer(text, arguments.text_pair.as_deref())
            }
            (None, Some(file)) => {
                let input = Input::texts(folder, file, &arguments.columns, Some(self.predictor.task()))?;
                let rows_at_a_time = CHUNK.max(arguments.batch_size);
                match arguments.out.as_deref().filter(|out| *out != Path::new("-")) {
                    Some(out) => self.write(&input, rows_at_a_time, out),
                    None => self.each_prediction(&input, rows_at_a_time, console::json).map(drop),
                }
            }
            (None, None) => prompt::run(self),
        }
    }

    /// Prints the model's prediction for one text.
    pub fn answer(&self, text: &str, text_pair: Option<&str>) -> anyhow::Result<()> {
        for prediction in self.predict(&[(text, text_pair)])? {
            if self.json {
                console::json(&prediction)?;
            } else {
                console::result(in_words(&prediction, text_pair))?;
            }
        }
        Ok(())
    }

    fn write(&self, input: &Input, rows_at_a_time: usize, out: &Path) -> anyhow::Result<()> {
        let cannot_write = || format!("{}: cannot be written", out.display());
        let mut file = FileWriter::create(out).with_context(cannot_write)?;
        let count = self.each_prediction(input, rows_at_a_time, |prediction| {
            let mut line = serde_json::to_vec(prediction)?;
            line.push(b'\n');
            file.write_all(&line).with_context(cannot_write)
        })?;
        file.finish().with_context(cannot_write)?;
        console::log(format_args!("{} → {}", console::counted(count, "row"), out.display()));
        Ok(())
    }

    fn each_prediction(
        &self,
        input: &Input,
        rows_at_a_time: usize,
        mut write: impl FnMut(&Prediction) -> anyhow::Result<()>,
    ) -> anyhow::Result<usize> {
        // The units of a file are those that its tags are for, which differ from those of raw text: `U.S.`, `well-known`.
        let units = if self.predictor.task() == Task::TokenClassification { input.tagged()? } else { None };
        let Some(texts) = units else {
            return input.for_each_chunk(rows_at_a_time, |texts| self.predict(texts)?.iter().try_for_each(&mut write));
        };
        for texts in texts.chunks(rows_at_a_time) {
            let texts: Vec<_> = texts.iter().map(|text| (text.text.as_str(), text.units.as_slice())).collect();
            self.predictor.predict_units(&texts)?.iter().try_for_each(&mut write)?;
        }
        Ok(texts.len())
    }

    fn predict(&self, texts: &[(&str, Option<&str>)]) -> anyhow::Result<Vec<Prediction>> {
        let mut predictions = self.predictor.predict(texts)?;
        if let Some(min_score) = self.min_score {
            let unless_below = |prediction| match prediction {
                Prediction::Label(label) => Prediction::Label(label.unless_below(min_score)),
                other => other,
            };
            predictions = predictions.into_iter().map(unless_below).collect();
        }
        if let Some(count) = self.top_k {
            predictions.iter_mut().for_each(|prediction| keep_best(prediction, count));
        }
        Ok(predictions)
    }
}

/// Keeps the labels with the highest scores, the best first.
fn keep_best(prediction: &mut Prediction, count: usize) {
    let scores = match prediction {
        Prediction::Label(label) => &mut label.scores,
        Prediction::Labels(labels) => &mut labels.scores,
        _ => return,
    };
    scores.sort_by(|a, b| b.1.total_cmp(&a.1));
    scores.truncate(count);
}

#[cfg(test)]
mod tests {
    use kiln_predict::{LabelPrediction, Texts};

    use super::*;

    #[test]
    fn the_best_labels_are_kept_in_order() {
        let scores = [("a", 0.2), ("b", 0.5), ("c", 0.3)].map(|(label, score)| (label.to_owned(), score)).to_vec();
        let texts = Texts { text: "x".to_owned(), text_pair: None };
        let mut prediction =
            Prediction::Label(LabelPrediction { texts, label: Some("b".to_owned()), score: 0.5, scores });
        keep_best(&mut prediction, 2);
        let json = serde_json::to_string(&prediction).expect("it has no strange keys");
        assert_eq!(json, r#"{"text":"x","label":"b","score":0.5,"scores":{"b":0.5,"c":0.3}}"#);
    }
}
