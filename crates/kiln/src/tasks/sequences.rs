//! Sequence classification: texts and pairs with one label, several, or a number.

use std::marker::PhantomData;

use anyhow::bail;
use burn::module::Module;
use burn::tensor::Device;
use kiln_dataset::{Item, Record, Source, read};
use kiln_eval::{Judged, mistakes, to_tsv, tsv};
use kiln_heads::{Calibration, Network, SequenceClassifier};
use kiln_metrics::argmax;
use kiln_predict::Predictor;
use kiln_schema::{Example, LabelId, LabelSet, ProblemType, Split, Splits};
use kiln_tokenize::Encoding;
use kiln_train::{Encoded, EvaluationSet, Scope, Targets};

use super::{BATCH_SIZE, Judgement, MISTAKES, Scored};
use crate::recipe::{Encoder, Train};
use crate::stages::explain::with_tokens;
use crate::stages::features::features;
use crate::stages::fit::{FitOptions, Fitted, fit};
use crate::stages::model::{prepare, pretrained, scope};
use crate::stages::read::{RowLengths, Rows, audit_rows, count_inexact, rows, unlabelled, warn_of_inexact};
use crate::stages::settle::Plan;
use crate::stages::teacher::{self, Lessons, Teacher, check_tokens, matching, taught};
use crate::stages::{Described, Learner, Stages, Tokens};
use crate::{Fold, Observer, UsageError};

/// The type of a row's target.
pub(crate) trait Target: Sized + Clone {
    /// How the model's logits are interpreted.
    const PROBLEM_TYPE: ProblemType;

    /// The targets of all rows.
    fn targets(rows: Vec<Self>, labels: &LabelSet) -> Targets;

    /// The targets of training rows, with the recipe's class weights, label smoothing and focal loss.
    fn to_train_on(rows: Vec<Self>, labels: &LabelSet, _: &Train) -> Result<Targets, UsageError> {
        Ok(Self::targets(rows, labels))
    }

    /// The model's errors, the worst first, as a table.
    fn errors(logits: &[f32], examples: &[Example<Self>], labels: &LabelSet) -> String;

    /// The model's result for each row.
    fn judged(logits: &[f32], examples: &[Example<Self>], labels: &LabelSet) -> Judged;
}

impl Target for LabelId {
    const PROBLEM_TYPE: ProblemType = ProblemType::SingleLabelClassification;

    fn targets(rows: Vec<Self>, labels: &LabelSet) -> Targets {
        Targets::Labels(rows, labels.clone())
    }

    fn to_train_on(rows: Vec<Self>, labels: &LabelSet, train: &Train) -> Result<Targets, UsageError> {
        Ok(match train.label_loss(rows.iter().copied(), labels)? {
            Some(loss) => Targets::LabelsWithLoss(rows, labels.clone(), loss),
            None => Self::targets(rows, labels),
        })
    }

    fn errors(logits: &[f32], examples: &[Example], labels: &LabelSet) -> String {
        let targets: Vec<LabelId> = examples.iter().map(|example| example.target).collect();
        to_tsv(&mistakes(logits, &targets, MISTAKES), examples, labels)
    }

    fn judged(logits: &[f32], examples: &[Example], labels: &LabelSet) -> Judged {
        let predictions: Vec<LabelId> = logits.chunks(labels.len()).map(argmax).collect();
        let targets: Vec<LabelId> = examples.iter().map(|example| example.target).collect();
        Judged::labels(&predictions, &targets)
    }
}

impl Target for Vec<LabelId> {
    const PROBLEM_TYPE: ProblemType = ProblemType::MultiLabelClassification;

    fn targets(rows: Vec<Self>, labels: &LabelSet) -> Targets {
        Targets::LabelSets(rows, labels.clone())
    }

    fn errors(logits: &[f32], examples: &[Example<Self>], labels: &LabelSet) -> String {
        let rows = logits.chunks(labels.len()).zip(examples).map(|(logits, Example { target, .. })| {
            let predicted = predicted_labels(logits);
            let wrong = (0..labels.len()).filter(|label| predicted.contains(label) != target.contains(label)).count();
            let names = |ids: &[LabelId]| ids.iter().map(|&id| labels.name(id)).collect::<Vec<_>>().join(",");
            (wrong as f64, names(&predicted), names(target))
        });
        worst(rows.collect(), examples)
    }

    fn judged(logits: &[f32], examples: &[Example<Self>], labels: &LabelSet) -> Judged {
        let predictions: Vec<Vec<LabelId>> = logits.chunks(labels.len()).map(predicted_labels).collect();
        let targets: Vec<Vec<LabelId>> = examples.iter().map(|example| example.target.clone()).collect();
        Judged::label_sets(&predictions, &targets)
    }
}

impl Target for f64 {
    const PROBLEM_TYPE: ProblemType = ProblemType::Regression;

    fn targets(rows: Vec<Self>, _: &LabelSet) -> Targets {
        Targets::Numbers(rows)
    }

    fn errors(logits: &[f32], examples: &[Example<Self>], _: &LabelSet) -> String {
        let rows = logits.iter().zip(examples).map(|(&predicted, Example { target, .. })| {
            ((f64::from(predicted) - target).abs(), format!("{predicted:.4}"), target.to_string())
        });
        worst(rows.collect(), examples)
    }

    fn judged(logits: &[f32], examples: &[Example<Self>], _: &LabelSet) -> Judged {
        let targets = examples.iter().map(|example| example.target).collect();
        Judged::numbers(logits.iter().copied().map(f64::from).collect(), targets)
    }
}

/// A table with row (from 1), prediction, target and texts; the rows with the largest error come first.
fn worst<T>(mut rows: Vec<(f64, String, String)>, examples: &[Example<T>]) -> String {
    let mut order: Vec<usize> = (0..rows.len()).filter(|&row| rows[row].0 > 0.0).collect();
    order.sort_by(|&a, &b| rows[b].0.total_cmp(&rows[a].0));
    let cells = |row: usize| {
        let (_, prediction, target) = std::mem::take(&mut rows[row]);
        let (text, pair) = examples[row].texts();
        [(row + 1).to_string(), prediction, target, text.to_owned(), pair.unwrap_or_default().to_owned()]
    };
    tsv(["row", "prediction", "target", "text", "text_pair"], order.into_iter().take(MISTAKES).map(cells))
}

/// The model's result for each row, from its logits and their calibration.
fn judge<T: Target>(
    (logits, calibration): (&[f32], Option<&Calibration>),
    examples: &[Example<T>],
    labels: &LabelSet,
) -> Judgement
where
    Example<T>: Item,
{
    let logits = calibration.map_or(logits.into(), |calibration| calibration.calibrated(logits));
    Judgement::new(T::errors(&logits, examples, labels), T::judged(&logits, examples, labels), examples)
}

/// The labels whose logit is at least the threshold of the label.
///
/// # Shapes
/// - `logits`: `[num_labels]`, with the logits of the thresholds subtracted
fn predicted_labels(logits: &[f32]) -> Vec<LabelId> {
    (0..logits.len()).filter(|&label| logits[label] >= 0.0).collect()
}

/// The stages of sequence classification with targets of type `T`.
pub(crate) struct Sequences<T>(PhantomData<T>);

impl<T> Sequences<T> {
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

/// Texts with labels, and texts without labels, which only the teacher labels.
pub(crate) struct SequenceRows<T> {
    pub labelled: Rows<Example<T>>,
    pub unlabelled: Vec<Example<()>>,
}

impl<T> SequenceRows<T> {
    /// All texts to train on, the labelled ones first.
    fn to_train_on(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.labelled.items.train.iter().map(Example::texts).chain(self.unlabelled.iter().map(Example::texts))
    }
}

impl<T: Target> Stages for Sequences<T>
where
    Example<T>: Record,
{
    type Rows = SequenceRows<T>;
    /// The training split includes the encodings of the unlabelled texts.
    type Encoded = Splits<Vec<Encoding>>;
    type Model = SequenceClassifier;

    fn read(&self, plan: &Plan<'_>, observer: &mut dyn Observer) -> anyhow::Result<Self::Rows> {
        let labelled = rows(plan, T::PROBLEM_TYPE == ProblemType::SingleLabelClassification, observer)?;
        Ok(SequenceRows { labelled, unlabelled: unlabelled(plan, observer)? })
    }

    fn encode(
        &self,
        plan: &Plan<'_>,
        rows: &Self::Rows,
        observer: &mut dyn Observer,
    ) -> anyhow::Result<Tokens<Self::Encoded>> {
        let tokenizer = plan.tokenizer();
        let encoded = rows.labelled.items.as_ref().try_map(|split, examples| match split {
            Split::Train => tokenizer.encode_all_counted(rows.to_train_on()),
            _ => tokenizer.encode_all_counted(examples.iter().map(Item::texts)),
        })?;
        if let Some(teacher) = plan.teacher.as_ref().filter(|_| matching(plan).is_some()) {
            check_tokens(&encoded.train, &teacher.tokenizer.encode_all(rows.to_train_on())?)?;
        }
        warn_of_inexact(encoded.iter().map(|(_, rows)| count_inexact(rows)).sum(), observer);
        let whole = |(encodings, examples): (&Vec<Encoding>, &Vec<_>)| -> Vec<usize> {
            encodings.iter().take(examples.len()).map(|encoding| encoding.full_length).collect()
        };
        let lengths = RowLengths {
            train: kiln_tokenize::lengths(&encoded.train),
            whole: encoded.as_ref().zip(rows.labelled.items.as_ref()).map(|_, pair| whole(pair)),
        };
        let (longest, audit) = audit_rows(plan, &rows.labelled, lengths, observer)?;
        let tokens = encoded.as_ref().map(|_, rows| kiln_tokenize::lengths(rows));
        Ok(Tokens { encoded, num_rows: tokens.train.len(), longest, audit, tokens })
    }

    fn pick(&self, rows: &Self::Rows, picked: &Splits<Vec<usize>>) -> Self::Rows {
        let labelled = rows.labelled.items.train.len();
        let mut picked = picked.clone();
        let unlabelled = picked.train.iter().filter_map(|row| rows.unlabelled.get(row.checked_sub(labelled)?).cloned());
        let unlabelled = unlabelled.collect();
        picked.train.retain(|row| *row < labelled);
        SequenceRows { labelled: rows.labelled.pick(&picked), unlabelled }
    }

    fn hold_out(
        &self,
        rows: Self::Rows,
        mut encoded: Self::Encoded,
        fold: Fold,
    ) -> anyhow::Result<(Self::Rows, Self::Encoded)> {
        // Unlabelled texts are in no fold; every training uses them.
        let unlabelled = encoded.train.split_off(rows.labelled.items.train.len());
        let (labelled, mut encoded) = rows.labelled.hold_out(encoded, fold)?;
        encoded.train.extend(unlabelled);
        Ok((SequenceRows { labelled, unlabelled: rows.unlabelled }, encoded))
    }

    fn model(&self, plan: &Plan<'_>, rows: &Self::Rows) -> anyhow::Result<Described<SequenceClassifier>> {
        let labels = &rows.labelled.labels;
        let (pooling, num_labels) = (plan.recipe.model.pooling, labels.len());
        let config = pretrained(plan, num_labels);
        let mut pretrained = config.sequence_classifier(&plan.checkpoint.folder, pooling, plan.device)?;
        prepare(plan, &mut pretrained.model.bert)?;
        let SequenceClassifier { bert, head, .. } = &pretrained.model;
        let (batch, hidden) = (plan.recipe.train.batch_size, pretrained.config.hidden_size);
        let name = format!("{pooling:?}").to_lowercase();
        let shape = format!("pooled [{batch}, {hidden}] → logits [{batch}, {num_labels}]");
        let head = format!("{name} pooling, {} parameters; {shape}", head.num_params());
        let teacher = teacher_of::<T>(plan, labels)?;
        Ok(Described { encoder_parameters: bert.parameter_count(), head, pretrained, teacher })
    }

    fn fit(
        &self,
        plan: &Plan<'_>,
        rows: &Self::Rows,
        mut encoded: Self::Encoded,
        learner: Learner<SequenceClassifier>,
        observer: &mut dyn Observer,
    ) -> anyhow::Result<Fitted<SequenceClassifier>> {
        let Learner { model, teacher } = learner;
        let lessons = teacher.map(|teacher| lessons(plan, rows, teacher)).transpose()?;
        let Rows { items, labels } = &rows.labelled;
        let pad_token_id = plan.tokenizer().pad_token_id();
        let unlabelled = encoded.train.split_off(items.train.len());
        let targets = items.as_ref().map(|_, rows| targets(rows));
        let mut sets = encoded.zip(targets).try_map(|split, (encodings, targets)| {
            let targets = match split {
                Split::Train => T::to_train_on(targets, labels, &plan.recipe.train)?,
                _ => T::targets(targets, labels),
            };
            anyhow::Ok(Encoded::new(encodings, targets, pad_token_id))
        })?;
        // The mistakes come from the test split or, if there is none, from the validation split.
        let judged = items.test.as_ref().unwrap_or(&items.validation);
        let judged_encodings = sets.test.as_ref().unwrap_or(&sets.validation).encodings().to_vec();
        let metric = plan.recipe.metric();
        let judge =
            |logits: &Vec<f32>, calibration: Option<&Calibration>| judge::<T>((logits, calibration), judged, labels);
        let mut fitted = match plan.recipe.model.encoder {
            Encoder::Full | Encoder::Lora | Encoder::Qlora => {
                sets.train = sets.train.with_unlabelled(unlabelled);
                let taught = taught(plan, sets, lessons, observer)?;
                let judge = |logits: &Vec<f32>, _: &_, calibration: Option<&Calibration>| judge(logits, calibration);
                let (scope, teacher_seconds) = (scope(plan, &model.bert), taught.seconds);
                let options = FitOptions { metric, scope, encoder_seconds: 0.0, teacher_seconds, judge };
                fit(plan, &taught.sets, model, options, observer)?
            }
            Encoder::Frozen => {
                let computed = features(plan, &sets, &model, observer)?;
                let encoder_seconds = computed.seconds;
                let judge = |logits: &Vec<f32>, _: &_, calibration: Option<&Calibration>| judge(logits, calibration);
                let scope = Scope::Whole;
                let options = FitOptions { metric, scope, encoder_seconds, teacher_seconds: 0.0, judge };
                let fitted = fit(plan, &computed.features, model.head.clone(), options, observer)?;
                let model = SequenceClassifier { head: fitted.model, ..model };
                Fitted { model, results: fitted.results }
            }
        };
        if T::PROBLEM_TYPE == ProblemType::SingleLabelClassification {
            let results = &mut fitted.results;
            results.errors = with_tokens(plan, &results.errors, (&fitted.model, labels), &judged_encodings)?;
        }
        Ok(fitted)
    }

    fn network(&self, rows: Self::Rows, model: SequenceClassifier) -> Network {
        Network::SequenceClassification { model, labels: rows.labelled.labels, problem_type: T::PROBLEM_TYPE }
    }
}

fn targets<T: Clone>(examples: &[Example<T>]) -> Vec<T> {
    examples.iter().map(|example| example.target.clone()).collect()
}

/// The recipe's teacher, if there is one. It must have the same task.
fn teacher_of<T: Target>(plan: &Plan<'_>, data: &LabelSet) -> anyhow::Result<Option<Teacher<SequenceClassifier>>> {
    match teacher::load(plan)? {
        None => Ok(None),
        Some(Network::SequenceClassification { model, labels, problem_type }) if problem_type == T::PROBLEM_TYPE => {
            let columns = match problem_type {
                ProblemType::Regression => None,
                _ => teacher::columns(&labels, data)?,
            };
            Ok(Some(Teacher { model, columns }))
        }
        Some(other) => bail!(teacher::wrong_task(plan, &other)),
    }
}

/// A teacher and all training texts, encoded by its own tokenizer.
fn lessons<T: Target>(
    plan: &Plan<'_>,
    rows: &SequenceRows<T>,
    teacher: Teacher<SequenceClassifier>,
) -> anyhow::Result<Lessons<Encoded>> {
    let tokenizer = &plan.teacher.as_ref().expect("a teacher has a folder").tokenizer;
    let mut labelled = tokenizer.encode_all(rows.to_train_on())?;
    let Rows { items, labels } = &rows.labelled;
    let unlabelled = labelled.split_off(items.train.len());
    let set = Encoded::new(labelled, T::targets(targets(&items.train), labels), tokenizer.pad_token_id());
    Ok(Lessons { teacher, set: Some(set.with_unlabelled(unlabelled)) })
}

/// The scores of a trained model on a labelled file.
pub(crate) fn score<T: Target>(
    predictor: &Predictor,
    (model, labels): (&SequenceClassifier, &LabelSet),
    source: &Source,
    device: &Device,
) -> anyhow::Result<Scored>
where
    Example<T>: Record,
{
    let (examples, _) = read::<Example<T>>(std::slice::from_ref(source), Some(labels.clone()))?;
    let encodings = predictor.tokenizer().encode_all(examples.iter().map(Item::texts))?;
    let targets = examples.iter().map(|example| example.target.clone()).collect();
    let set = Encoded::new(encodings, T::targets(targets, labels), predictor.tokenizer().pad_token_id());
    let logits = set.output(model, BATCH_SIZE, device);
    let report = set.calibrated_report(&logits, predictor.calibration())?;
    Ok(Scored::new(report, judge((&logits, predictor.calibration()), &examples, labels)))
}
