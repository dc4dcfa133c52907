//! Training on texts and pairs: one label, several, or a number.

use std::fmt::Write as _;

use std::marker::PhantomData;

use burn::module::Module;
use burn::tensor::Device;
use kiln_dataset::{Item, Record, Source, read};
use kiln_eval::{Judged, SplitReport, mistakes, to_tsv};
use kiln_heads::{Network, SequenceClassifier};
use kiln_metrics::argmax;
use kiln_predict::Predictor;
use kiln_schema::{Example, LabelId, LabelSet, ProblemType, Split, Splits};
use kiln_tokenize::Encoding;
use kiln_train::{Encoded, EvaluationSet, Targets};

use super::{BATCH_SIZE, MISTAKES, Scored};
use crate::recipe::{Encoder, Train};
use crate::stages::features::features;
use crate::stages::fit::{FitOptions, Fitted, fit};
use crate::stages::model::{prepare, pretrained};
use crate::stages::read::{RowLengths, Rows, audit_rows, count_inexact, rows, warn_of_inexact};
use crate::stages::settle::Plan;
use crate::stages::{Described, Stages, Tokens};
use crate::{Fold, Observer, UsageError};

/// What a row may be labelled with.
pub(crate) trait Target: Sized + Clone {
    /// FitOptions the model's logits are read.
    const PROBLEM_TYPE: ProblemType;

    /// Of all rows.
    fn targets(rows: Vec<Self>, labels: &LabelSet) -> Targets;

    /// The same of rows to train on, with the recipe's weights and smoothing.
    fn to_train_on(rows: Vec<Self>, labels: &LabelSet, _: &Train) -> Result<Targets, UsageError> {
        Ok(Self::targets(rows, labels))
    }

    /// What a model is wrong about, the worst first, as a table.
    fn errors(logits: &[f32], examples: &[Example<Self>], labels: &LabelSet) -> String;

    /// What a model made of each row.
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

/// Row (from 1), prediction, target and texts, those with the largest error first.
fn worst<T>(mut rows: Vec<(f64, String, String)>, examples: &[Example<T>]) -> String {
    let mut order: Vec<usize> = (0..rows.len()).filter(|&row| rows[row].0 > 0.0).collect();
    order.sort_by(|&a, &b| rows[b].0.total_cmp(&rows[a].0));
    let mut table = String::from("row\tprediction\ttarget\ttext\ttext_pair\n");
    for row in order.into_iter().take(MISTAKES) {
        let (_, said, target) = std::mem::take(&mut rows[row]);
        let (text, pair) = examples[row].texts();
        let flat = |text: &str| text.replace(['\t', '\n', '\r'], " ");
        writeln!(table, "{}\t{said}\t{target}\t{}\t{}", row + 1, flat(text), flat(pair.unwrap_or_default()))
            .expect("a string takes any text");
    }
    table
}

/// The labels whose probability is at least a half.
fn predicted_labels(logits: &[f32]) -> Vec<LabelId> {
    (0..logits.len()).filter(|&label| logits[label] >= 0.0).collect()
}

/// Training on texts and pairs with such targets.
pub(crate) struct Sequences<T>(PhantomData<T>);

impl<T> Sequences<T> {
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Target> Stages for Sequences<T>
where
    Example<T>: Record,
{
    type Rows = Rows<Example<T>>;
    type Encoded = Splits<Vec<Encoding>>;
    type Model = SequenceClassifier;

    fn read(&self, plan: &Plan<'_>, observer: &mut dyn Observer) -> anyhow::Result<Self::Rows> {
        rows(plan, T::PROBLEM_TYPE == ProblemType::SingleLabelClassification, observer)
    }

    fn encode(
        &self,
        plan: &Plan<'_>,
        rows: &Self::Rows,
        observer: &mut dyn Observer,
    ) -> anyhow::Result<Tokens<Self::Encoded>> {
        let tokenizer = plan.tokenizer();
        let encoded = (rows.items.as_ref())
            .try_map(|_, examples| tokenizer.encode_all_counted(examples.iter().map(Item::texts)))?;
        warn_of_inexact(encoded.iter().map(|(_, rows)| count_inexact(rows)).sum(), observer);
        let whole = |rows: &Vec<Encoding>| rows.iter().map(|encoding| encoding.full_length).collect();
        let lengths = RowLengths {
            train: kiln_tokenize::lengths(&encoded.train),
            whole: encoded.as_ref().map(|_, rows| whole(rows)),
        };
        let longest = audit_rows(plan, rows, lengths, observer)?;
        let tokens = encoded.as_ref().map(|_, rows| kiln_tokenize::lengths(rows));
        Ok(Tokens { encoded, longest, tokens })
    }

    fn pick(&self, rows: &Self::Rows, picked: &Splits<Vec<usize>>) -> Self::Rows {
        rows.pick(picked)
    }

    fn hold_out(
        &self,
        rows: Self::Rows,
        encoded: Self::Encoded,
        fold: Fold,
    ) -> anyhow::Result<(Self::Rows, Self::Encoded)> {
        rows.hold_out(encoded, fold)
    }

    fn model(&self, plan: &Plan<'_>, rows: &Self::Rows) -> anyhow::Result<Described<SequenceClassifier>> {
        let (pooling, num_labels) = (plan.recipe.model.pooling, rows.labels.len());
        let config = pretrained(plan, num_labels);
        let mut pretrained = config.sequence_classifier(&plan.checkpoint.folder, pooling, plan.device)?;
        prepare(plan, &mut pretrained.model.bert)?;
        let SequenceClassifier { bert, head, .. } = &pretrained.model;
        let (batch, hidden) = (plan.recipe.train.batch_size, pretrained.config.hidden_size);
        let name = format!("{pooling:?}").to_lowercase();
        let shape = format!("pooled [{batch}, {hidden}] → logits [{batch}, {num_labels}]");
        let head = format!("{name} pooling, {} parameters; {shape}", head.num_params());
        Ok(Described { encoder_parameters: bert.num_params(), head, pretrained })
    }

    fn fit(
        &self,
        plan: &Plan<'_>,
        rows: &Self::Rows,
        encoded: Self::Encoded,
        model: SequenceClassifier,
        observer: &mut dyn Observer,
    ) -> anyhow::Result<Fitted<SequenceClassifier>> {
        let Rows { items, labels } = rows;
        let pad_token_id = plan.tokenizer().pad_token_id();
        let targets =
            items.as_ref().map(|_, rows| rows.iter().map(|example| example.target.clone()).collect::<Vec<T>>());
        let sets = encoded.zip(targets).try_map(|split, (encodings, targets)| {
            let targets = match split {
                Split::Train => T::to_train_on(targets, labels, &plan.recipe.train)?,
                _ => T::targets(targets, labels),
            };
            anyhow::Ok(Encoded::new(encodings, targets, pad_token_id))
        })?;
        // The mistakes of the test, or where there is none, of the validation.
        let judged = items.test.as_ref().unwrap_or(&items.validation);
        let metric = plan.recipe.metric();
        let errors = |logits: &Vec<f32>| T::errors(logits, judged, labels);
        match plan.recipe.model.encoder {
            Encoder::Full | Encoder::Lora | Encoder::Qlora => {
                let options =
                    FitOptions { metric, encoder_seconds: 0.0, errors: |logits: &Vec<f32>, _: &_| errors(logits) };
                fit(plan, &sets, model, options, observer)
            }
            Encoder::Frozen => {
                let computed = features(plan, &sets, &model, observer)?;
                let encoder_seconds = computed.seconds;
                let options = FitOptions { metric, encoder_seconds, errors: |logits: &Vec<f32>, _: &_| errors(logits) };
                let fitted = fit(plan, &computed.features, model.head.clone(), options, observer)?;
                let model = SequenceClassifier { head: fitted.model, ..model };
                Ok(Fitted { model, results: fitted.results })
            }
        }
    }

    fn network(&self, rows: Self::Rows, model: SequenceClassifier) -> Network {
        Network::SequenceClassification { model, labels: rows.labels, problem_type: T::PROBLEM_TYPE }
    }
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
    let calibration = set.calibration(&logits, predictor.temperature());
    Ok(Scored {
        report: SplitReport { calibration, ..set.report(&logits)? },
        errors: T::errors(&logits, &examples, labels),
        judged: Some(T::judged(&logits, &examples, labels)),
    })
}
