//! Cross-validation: trains once for each fold on all other folds, and predicts the rows that were held out.

use anyhow::Context;
use kiln_heads::{Calibration, SequenceClassifier};
use kiln_schema::{Example, LabelId, Splits};
use kiln_train::{Encoded, EvaluationSet, Features, Scope, TrainingSet};

use super::Judgement;
use super::sequences::{SequenceRows, Sequences, Target};
use crate::Observer;
use crate::recipe::Encoder;
use crate::stages::features::features;
use crate::stages::fit::{FitOptions, fit};
use crate::stages::model::{describe, scope};
use crate::stages::read::Rows;
use crate::stages::save::RunFolder;
use crate::stages::settle::Plan;
use crate::stages::teacher::taught;
use crate::stages::{Stages, Tokens};

/// The results for the rows of a training split, after each row was held out once.
pub(crate) struct HeldOut {
    /// The logits of the model that was not trained on the row, row-major `[rows, num_labels]`.
    pub logits: Vec<f32>,
    /// The vector that the checkpoint's encoder computes for each row.
    pub vectors: Features,
}

/// For each fold, trains on the rows of all other folds, validates on the recipe's validation split, and computes the
/// logits of the fold. `parts` has the fold of each training row, from 0. A frozen encoder runs once. The folder of each
/// training is inside the run's folder, and is deleted afterwards.
pub(crate) fn hold_out_each(
    plan: &mut Plan<'_>,
    rows: &SequenceRows<LabelId>,
    parts: &[usize],
    observer: &mut dyn Observer,
) -> anyhow::Result<HeldOut> {
    let task = Sequences::<LabelId>::new();
    let Tokens { encoded, longest, .. } = task.encode(plan, rows, observer)?;
    let described = task.model(plan, rows)?;
    describe(plan, &described, longest, observer);
    let rows = &rows.labelled;
    let encoded = encoded.zip(rows.items.as_ref()).map(|_, (encodings, examples)| {
        let targets = examples.iter().map(|example| example.target).collect();
        Encoded::new(encodings, LabelId::targets(targets, &rows.labels), plan.tokenizer().pad_token_id())
    });
    // The cache is keyed by the checkpoint's files, and an encoder with an adapter may have other weights.
    plan.keeps_features = plan.recipe.model.encoder == Encoder::Frozen;
    let model = described.pretrained.model;
    let vectors = features(plan, &encoded, &model, observer)?.features;
    let all = Prepared { rows, encoded, vectors, model };
    let (folds, folder) = (parts.iter().max().map_or(0, |last| last + 1), plan.folder.path.clone());
    let width = rows.labels.len();
    let mut logits = vec![0.0; parts.len() * width];
    for fold in 0..folds {
        let (held, train): (Vec<usize>, Vec<usize>) = (0..parts.len()).partition(|&row| parts[row] == fold);
        let sizes = format!("{} of {folds}: train [{}], held out [{}]", fold + 1, train.len(), held.len());
        observer.stage("fold", "kiln-train", &sizes);
        let path = folder.join(format!("fold-{}", fold + 1));
        plan.folder = RunFolder::new(path.clone(), false);
        plan.folder.create()?;
        let of_fold = all.held_out_logits(plan, (&train, &held), observer)?;
        std::fs::remove_dir_all(&path).with_context(|| format!("{}: cannot be deleted", path.display()))?;
        for (&row, of_row) in held.iter().zip(of_fold.chunks(width)) {
            logits[row * width..][..width].copy_from_slice(of_row);
        }
    }
    Ok(HeldOut { logits, vectors: all.vectors.train })
}

/// All encoded rows, and the model that each training starts from.
struct Prepared<'a> {
    rows: &'a Rows<Example>,
    encoded: Splits<Encoded>,
    vectors: Splits<Features>,
    model: SequenceClassifier,
}

impl Prepared<'_> {
    /// Trains on the rows `train` of the training split, and returns the logits of the rows `held`.
    fn held_out_logits(
        &self,
        plan: &Plan<'_>,
        (train, held): (&[usize], &[usize]),
        observer: &mut dyn Observer,
    ) -> anyhow::Result<Vec<f32>> {
        let Self { rows: Rows { items, labels }, encoded, vectors, model } = self;
        let targets = |rows: &[usize]| rows.iter().map(|&row| items.train[row].target).collect::<Vec<LabelId>>();
        let to_train_on = LabelId::to_train_on(targets(train), labels, &plan.recipe.train)?;
        let to_test = LabelId::targets(targets(held), labels);
        if plan.recipe.model.encoder == Encoder::Frozen {
            let sets = Splits {
                train: vectors.train.pick(train, to_train_on),
                validation: vectors.validation.clone(),
                test: Some(vectors.train.pick(held, to_test)),
            };
            return test_logits(plan, &sets, (model.head.clone(), Scope::Whole), observer);
        }
        let pick = |rows: &[usize], targets| {
            let encodings = rows.iter().map(|&row| encoded.train.encodings()[row].clone()).collect();
            Encoded::new(encodings, targets, encoded.train.pad_token_id())
        };
        let sets = Splits {
            train: pick(train, to_train_on),
            validation: encoded.validation.clone(),
            test: Some(pick(held, to_test)),
        };
        let sets = taught(plan, sets, None, observer)?.sets;
        test_logits(plan, &sets, (model.clone(), scope(plan, &model.bert)), observer)
    }
}

/// Trains the parameters in scope, and returns the best checkpoint's logits for the test split.
fn test_logits<S>(
    plan: &Plan<'_>,
    sets: &Splits<S>,
    (model, scope): (S::Model, Scope),
    observer: &mut dyn Observer,
) -> anyhow::Result<Vec<f32>>
where
    S: TrainingSet + EvaluationSet<<S as TrainingSet>::Model, Output = Vec<f32>>,
{
    let mut logits = Vec::new();
    let judge = |output: &Vec<f32>, _: &S, _: Option<&Calibration>| {
        logits.clone_from(output);
        Judgement::none()
    };
    let metric = plan.recipe.metric();
    fit(plan, sets, model, FitOptions { metric, scope, encoder_seconds: 0.0, teacher_seconds: 0.0, judge }, observer)?;
    Ok(logits)
}
