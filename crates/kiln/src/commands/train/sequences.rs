//! Training on texts and pairs: one label, several, or a number.

use std::fmt::Write as _;

use burn::module::Module;
use kiln_dataset::{Item, Record};
use kiln_eval::{mistakes, to_tsv};
use kiln_heads::{Network, Pretrained, SequenceClassifier, TaskModel};
use kiln_schema::{Example, LabelId, LabelSet, Split};
use kiln_train::{Encoded, Targets};

use super::job::Trained;
use super::{MISTAKES, Outcome, Run};
use crate::cli::UsageError;
use crate::commands::data::{count_inexact, warn_of_inexact};
use crate::recipe::{Encoder, Train};

/// What a row may be labelled with.
pub trait Target: Sized + Clone {
    /// Of all rows.
    fn targets(rows: Vec<Self>, labels: &LabelSet) -> Targets;

    /// The same of rows to train on, with the recipe's weights and smoothing.
    fn to_train_on(rows: Vec<Self>, labels: &LabelSet, _: &Train) -> Result<Targets, UsageError> {
        Ok(Self::targets(rows, labels))
    }

    /// What a model is wrong about, the worst first, as a table.
    fn errors(logits: &[f32], examples: &[Example<Self>], labels: &LabelSet) -> String;
}

impl Target for LabelId {
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
}

impl Target for Vec<LabelId> {
    fn targets(rows: Vec<Self>, labels: &LabelSet) -> Targets {
        Targets::LabelSets(rows, labels.clone())
    }

    fn errors(logits: &[f32], examples: &[Example<Self>], labels: &LabelSet) -> String {
        let rows = logits.chunks(labels.len()).zip(examples).map(|(logits, Example { target, .. })| {
            let said: Vec<LabelId> = (0..labels.len()).filter(|&label| logits[label] >= 0.0).collect();
            let wrong = (0..labels.len()).filter(|label| said.contains(label) != target.contains(label)).count();
            let names = |ids: &[LabelId]| ids.iter().map(|&id| labels.name(id)).collect::<Vec<_>>().join(",");
            (wrong as f64, names(&said), names(target))
        });
        worst(rows.collect(), examples)
    }
}

impl Target for f64 {
    fn targets(rows: Vec<Self>, _: &LabelSet) -> Targets {
        Targets::Numbers(rows)
    }

    fn errors(logits: &[f32], examples: &[Example<Self>], _: &LabelSet) -> String {
        let rows = logits.iter().zip(examples).map(|(&said, Example { target, .. })| {
            ((f64::from(said) - target).abs(), format!("{said:.4}"), target.to_string())
        });
        worst(rows.collect(), examples)
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

impl Run<'_> {
    pub fn sequences<T: Target>(&self) -> anyhow::Result<Outcome>
    where
        Example<T>: Record,
    {
        let (examples, labels) = self.read::<Example<T>>()?;
        let encodings =
            examples.as_ref().try_map(|_, rows| self.tokenizer().encode_all_counted(rows.iter().map(Item::texts)))?;
        warn_of_inexact(encodings.iter().map(|(_, rows)| count_inexact(rows)).sum());
        let lengths = kiln_tokenize::lengths(&encodings.train);
        self.show_shape(encodings.train.len(), &lengths);
        let tokens = encodings.as_ref().map(|_, rows| rows.iter().map(|encoding| encoding.full_length).collect());
        self.audit(&examples, &labels, tokens)?;

        let pooling = self.recipe.model.pooling;
        let config = self.pretrained(labels.len());
        let mut pretrained = config.sequence_classifier(&self.checkpoint.folder, pooling, self.device)?;
        self.prepare(&mut pretrained.model.bert);
        let Pretrained { model: SequenceClassifier { bert, head, .. }, config, .. } = &pretrained;
        let (batch, hidden) = (self.recipe.train.batch_size, config.hidden_size);
        let name = format!("{pooling:?}").to_lowercase();
        let shape = format!("pooled [{batch}, {hidden}] → logits [{batch}, {}]", labels.len());
        let head = format!("{name} pooling, {} parameters; {shape}", head.num_params());
        self.describe(&pretrained, bert, lengths.iter().max().copied().unwrap_or(0), &head);
        self.begin()?;

        let pad_token_id = self.tokenizer().pad_token_id();
        let targets = examples.as_ref().map(|_, rows| rows.iter().map(|example| example.target.clone()).collect());
        let sets = encodings.zip(targets).try_map(|split, (encodings, targets): (_, Vec<T>)| {
            let targets = match split {
                Split::Train => T::to_train_on(targets, &labels, &self.recipe.train)?,
                _ => T::targets(targets, &labels),
            };
            anyhow::Ok(Encoded::new(encodings, targets, pad_token_id))
        })?;
        let job = self.job();
        let (model, train, splits, logits) = match self.recipe.model.encoder {
            Encoder::Full => {
                let Trained { model, train, splits, judged } = job.fit(&sets, pretrained.model, 0.0)?;
                (model, train, splits, judged)
            }
            Encoder::Frozen => {
                let (features, seconds) = job.features(&sets, &pretrained.model, self.weights_hash())?;
                let head = pretrained.model.head.clone();
                let Trained { model: head, train, splits, judged } = job.fit(&features, head, seconds)?;
                (SequenceClassifier { head, ..pretrained.model }, train, splits, judged)
            }
        };
        // The mistakes of the test, or where there is none, of the validation.
        let judged = examples.test.as_ref().unwrap_or(&examples.validation);
        let errors = T::errors(&logits, judged, &labels);
        let network = Network::SequenceClassification { model, labels, problem_type: self.recipe.model.problem_type };
        self.finish(&TaskModel { network, config: pretrained.config }, train, splits, &errors)
    }
}
