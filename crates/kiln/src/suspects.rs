use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use kiln_backend::Backend;
use kiln_dataset::{Format, Place, Placed, folds};
use kiln_files::is_same_file;
use kiln_metrics::{argmax, label_issues, softmax};
use kiln_schema::{Example, LabelSet, Splits};
use kiln_train::Features;
use rayon::prelude::*;
use serde::Serialize;

use crate::error::Interrupted;
use crate::stages::read::{Rows, rows};
use crate::stages::settle::{Plan, settle};
use crate::tasks::folds::{HeldOut, hold_out_each};
use crate::tasks::sequences::SequenceRows;
use crate::{Error, Observer, Recipe, RunOptions, UsageError};

mod table;

/// The result of a search for wrong labels in a training split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Suspects {
    /// The path of the table of all rows, the suspect ones first.
    pub path: PathBuf,
    /// Number of rows in the training split.
    pub examples: usize,
    /// Number of folds, with one training each.
    pub folds: usize,
    /// Share of the rows whose label agrees with the prediction of the model that was not trained on them.
    pub accuracy: f64,
    /// The rows whose label is likely wrong, the least probable label first.
    pub suspects: Vec<Suspect>,
}

/// A row whose label is likely wrong. Its probabilities come from a model that was not trained on it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Suspect {
    /// The row's file.
    pub file: PathBuf,
    /// The line in a text file, or the row in a columnar file; from 1.
    pub line: u64,
    /// The label that the row has.
    pub label: String,
    /// The probability of that label.
    pub probability: f64,
    /// The most probable label.
    pub suggested: String,
    /// The probability of that label.
    pub suggested_probability: f64,
    /// The probability of every label.
    pub scores: BTreeMap<String, f64>,
    /// The text.
    pub text: String,
    /// The second text of a pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_pair: Option<String>,
    /// The most similar other rows, the most similar first; empty for rows that are not suspect.
    pub nearest: Vec<Neighbour>,
}

/// A row of the training split that is similar to a suspect row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Neighbour {
    /// The row's label.
    pub label: String,
    /// Cosine similarity of the vectors that the checkpoint's encoder computes for both rows.
    pub similarity: f64,
    /// The row's text.
    pub text: String,
}

/// Number of similar rows for each suspect.
const NEIGHBOURS: usize = 3;

/// Looks for wrong labels in the training split of a recipe. Divides the split into `folds`, trains once for each fold on
/// the other folds, and compares each label with the model that was not trained on its row ([`label_issues`]). Writes the
/// rows to `options.out`. After correction, the recipe can name this file as `data.train`.
///
/// # Errors
/// The same as for [`train`](crate::train). Also when the task is not classification with one label per text, when the name
/// of the table is that of another format, or when the table would overwrite the recipe's data.
pub fn suspects<B: Backend>(
    recipe: &Recipe,
    options: &RunOptions,
    folds: usize,
    observer: &mut dyn Observer,
) -> Result<Suspects, Error> {
    let mut run = || {
        let out = checked(recipe, options)?;
        let device = B::find_device(options.device)?;
        let folder = tempfile::tempdir().context("cannot create a temporary folder")?;
        let options = RunOptions { out: Some(folder.path().join("run")), resume: false, ..options.clone() };
        let mut plan = settle::<B>(recipe, &options, &device, observer)?;
        if let Some(input) = plan.files.all().into_iter().find(|input| is_same_file(input, out)) {
            let input = input.display();
            bail!(UsageError(format!("--out {input} is an input of the recipe and would be overwritten")));
        }
        find(&mut plan, (folds, out), observer)
    };
    let unsaved = |error: anyhow::Error| match error.is::<Interrupted>() {
        true => Interrupted("nothing was written".to_owned()).into(),
        false => error,
    };
    rayon::scope(|_| run()).map_err(|error| unsaved(error).into())
}

/// The file to write; an error for a recipe that is not supported.
fn checked<'a>(recipe: &Recipe, options: &'a RunOptions) -> anyhow::Result<&'a Path> {
    if !recipe.has_one_label() {
        let kind = recipe.kind();
        bail!(UsageError(format!("`kiln data suspects` needs one label per text; the recipe's task is {kind}")));
    }
    if recipe.distill.is_some() {
        let message =
            "`kiln data suspects` takes no `[distill]`: a teacher may know the labels of rows that are held out";
        bail!(UsageError(message.to_owned()));
    }
    let out = options.out.as_deref().ok_or_else(|| UsageError("expected --out, the table to write".to_owned()))?;
    // Training would read the table in the format of its name. A name without a known ending is an error there.
    match Format::from_path(out) {
        Ok(format) if format != Format::Tsv => {
            let (path, format) = (out.display(), format!("{format:?}").to_lowercase());
            bail!(UsageError(format!(
                "--out {path}: found a name for the format {format}, expected a name that ends in `.tsv`: \
                 the table has tab-separated values"
            )))
        }
        _ => Ok(out),
    }
}

fn find(plan: &mut Plan<'_>, (count, out): (usize, &Path), observer: &mut dyn Observer) -> anyhow::Result<Suspects> {
    let Rows { items, labels } = rows::<Placed<Example>>(plan, true, observer)?;
    let parts = folds(&items.train, count, plan.recipe.train.seed)?;
    let places: Vec<Place> = items.train.iter().map(|row| row.place.clone()).collect();
    let items = Splits { test: None, ..items }.map(|_, rows| rows.into_iter().map(|row| row.item).collect::<Vec<_>>());
    let rows = SequenceRows { labelled: Rows { items, labels }, unlabelled: Vec::new() };
    let HeldOut { logits, vectors } = hold_out_each(plan, &rows, &parts, observer)?;
    let rows = rows.labelled;
    let checked = Checked::new(&rows, &places, &logits);
    let issues = label_issues(&checked.probabilities, &checked.targets, rows.labels.len());
    let directions = Directions::new(&vectors);
    let with_evidence = |&row: &usize| {
        let nearest = directions.nearest(row).into_iter();
        Suspect {
            nearest: nearest.map(|(other, cosine)| checked.neighbour(other, cosine)).collect(),
            ..checked.row(row)
        }
    };
    let suspects: Vec<Suspect> = issues.par_iter().map(with_evidence).collect();
    let mut is_suspect = vec![false; parts.len()];
    issues.iter().for_each(|&row| is_suspect[row] = true);
    let others = (0..parts.len()).filter(|&row| !is_suspect[row]).map(|row| checked.row(row));
    let table = table::to_tsv(&plan.recipe.data, &suspects, others);
    kiln_files::write(out, table.as_bytes()).with_context(|| format!("{}: cannot be written", out.display()))?;
    if let (false, Some(keys)) = (suspects.is_empty(), table::keys_to_remove(&plan.recipe.data)) {
        observer.note(&format_args!(
            "before you train on {}, remove {keys} from the recipe: the table is a TSV in UTF-8, and Kiln finds the format \
             of each file by its name and the encoding by its bytes",
            out.display()
        ));
    }
    let right = checked.predictions.iter().zip(&checked.targets).filter(|(prediction, target)| prediction == target);
    let accuracy = right.count() as f64 / parts.len() as f64;
    Ok(Suspects { path: out.to_owned(), examples: parts.len(), folds: count, accuracy, suspects })
}

/// The training rows, and the predictions of the models that were not trained on them.
struct Checked<'a> {
    examples: &'a [Example],
    places: &'a [Place],
    labels: &'a LabelSet,
    targets: Vec<usize>,
    predictions: Vec<usize>,
    /// Row-major `[rows, num_labels]`.
    probabilities: Vec<f64>,
}

impl<'a> Checked<'a> {
    fn new(rows: &'a Rows<Example>, places: &'a [Place], logits: &[f32]) -> Self {
        let (examples, labels) = (rows.items.train.as_slice(), &rows.labels);
        Self {
            examples,
            places,
            labels,
            targets: examples.iter().map(|example| example.target).collect(),
            predictions: logits.chunks(labels.len()).map(argmax).collect(),
            probabilities: logits.chunks(labels.len()).flat_map(softmax).collect(),
        }
    }

    /// A row without its similar rows.
    fn row(&self, row: usize) -> Suspect {
        let (Example { text, text_pair, target }, Place { path, line, .. }) = (&self.examples[row], &self.places[row]);
        let probabilities = &self.probabilities[row * self.labels.len()..][..self.labels.len()];
        let predicted = self.predictions[row];
        Suspect {
            file: path.clone(),
            line: *line,
            label: self.labels.name(*target).to_owned(),
            probability: probabilities[*target],
            suggested: self.labels.name(predicted).to_owned(),
            suggested_probability: probabilities[predicted],
            scores: self.labels.names().iter().cloned().zip(probabilities.iter().copied()).collect(),
            text: text.clone(),
            text_pair: text_pair.clone(),
            nearest: Vec::new(),
        }
    }

    fn neighbour(&self, row: usize, similarity: f64) -> Neighbour {
        let Example { text, target, .. } = &self.examples[row];
        Neighbour { label: self.labels.name(*target).to_owned(), similarity, text: text.clone() }
    }
}

/// The rows' vectors, scaled to length 1.
struct Directions {
    /// Row-major `[rows, width]`.
    values: Vec<f32>,
    width: usize,
}

impl Directions {
    fn new(vectors: &Features) -> Self {
        use kiln_train::Dataset;
        let scaled = |row: &[f32]| {
            let length = row.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
            row.iter().map(|value| value / length).collect::<Vec<f32>>()
        };
        let values = (0..vectors.rows()).flat_map(|row| scaled(vectors.row(row))).collect();
        Self { values, width: vectors.width() }
    }

    /// The other rows with the largest cosines, the largest first, and their cosines.
    fn nearest(&self, row: usize) -> Vec<(usize, f64)> {
        let this = &self.values[row * self.width..][..self.width];
        let cosine = |other: &[f32]| this.iter().zip(other).map(|(a, b)| a * b).sum::<f32>();
        let mut others: Vec<(usize, f32)> =
            self.values.chunks(self.width).map(cosine).enumerate().filter(|(other, _)| *other != row).collect();
        others.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        others.into_iter().take(NEIGHBOURS).map(|(other, cosine)| (other, f64::from(cosine))).collect()
    }
}

#[cfg(test)]
mod tests {
    use kiln_train::Targets;

    use super::*;

    #[test]
    fn the_nearest_rows_are_those_of_the_same_direction() {
        let vectors = [1.0, 0.0, 0.0, 2.0, 3.0, 0.0, 1.0, 1.0, 0.0, 0.0];
        let directions = Directions::new(&Features::new(vectors.to_vec(), 2, Targets::Numbers(vec![0.0; 5])));
        let nearest = directions.nearest(0);
        assert_eq!(nearest.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [2, 3, 1]);
        assert!((nearest[0].1 - 1.0).abs() < 1e-6 && (nearest[1].1 - 0.5f64.sqrt()).abs() < 1e-6);
    }
}
