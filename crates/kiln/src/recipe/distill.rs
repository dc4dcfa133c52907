use std::path::Path;

use kiln_heads::Start;
use kiln_hub::{Location, Source};
use kiln_schema::Task;
use serde::{Deserialize, Serialize};

use super::checked;
use super::{DataPath, Encoder, Model, RecipeFile, Rule};

/// `[distill]`: a teacher whose outputs the model learns, in addition to the labels or instead of them.
///
/// The loss of a row is `alpha · labels + (1 − alpha) · teacher`. The teacher's term is the KL divergence of the softmaxes
/// for a single label, tags, and the start and end of an answer; the divergence of one sigmoid per label for multi-label
/// classification; and the squared error for regression. For raw text, the labels are the masked tokens, and the teacher's
/// term is the squared error of the last layer's hidden states.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distill {
    /// The teacher: a source, or the folder of a run. It is a trained model of the same task and labels; for raw text, any
    /// encoder.
    pub teacher: Source,
    /// The temperature of both models' softmax or sigmoid. A higher value gives more weight to the teacher's unlikely
    /// labels.
    #[serde(default = "two", deserialize_with = "checked::positive")]
    pub temperature: f64,
    /// The weight of the loss on the labels; the teacher's term has the rest.
    #[serde(default = "half", deserialize_with = "checked::share")]
    pub alpha: f64,
    /// Whether to compare layers too: the hidden states of evenly mapped layers or, when the hidden sizes differ, the value
    /// relations of the last layers.
    #[serde(default)]
    pub hidden: bool,
    /// Files of further texts or pairs without labels, which only the teacher labels. The columns are those of the labelled
    /// files. In plain text, each line is a row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlabelled: Vec<DataPath>,
}

/// `[student]`: the layers of the checkpoint that the trained model keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Student {
    /// The layers of `model.source` to keep, numbered from 0, in ascending order. The saved model has only these layers.
    #[serde(deserialize_with = "checked::ascending")]
    pub layers: Vec<usize>,
}

fn two() -> f64 {
    2.0
}

fn half() -> f64 {
    0.5
}

impl Distill {
    /// Makes paths absolute.
    pub fn in_folder(mut self, folder: &Path) -> Self {
        if let Source::Location(Location::Directory(path)) = &mut self.teacher {
            *path = folder.join(&path);
        }
        self.unlabelled = self.unlabelled.into_iter().map(|path| path.in_folder(folder)).collect();
        self
    }
}

/// Conditions of both sections on other keys.
pub(super) fn rules(file: &RecipeFile, model: &Model) -> Vec<Rule> {
    let is_full = model.encoder == Encoder::Full;
    let is_pretrained = model.initialize == Start::Pretrained && model.size.is_none();
    let mut rules = vec![
        Rule {
            key: "student",
            is_set: file.student.is_some(),
            is_allowed: is_full && is_pretrained,
            needs: "`model.encoder = \"full\"` and a checkpoint's own weights: neither `model.initialize = \"random\"` nor \
                    `model.size`",
        },
        Rule {
            key: "distill",
            is_set: file.distill.is_some(),
            is_allowed: is_full && (file.task != Task::MaskedLm || file.next_sentence == Some(false)),
            needs: "`model.encoder = \"full\"`, and for raw text also `next_sentence = false`",
        },
    ];
    if let Some(Distill { alpha, temperature, hidden, unlabelled, .. }) = &file.distill {
        let is_raw = file.task == Task::MaskedLm;
        rules.extend([
            Rule {
                key: "distill.hidden",
                is_set: is_raw && !hidden,
                is_allowed: false,
                needs: "to be true for raw text, where the student learns the teacher's hidden states",
            },
            Rule {
                key: "distill.temperature",
                is_set: *temperature != two(),
                is_allowed: !is_raw,
                needs: "a task with labels: for raw text no logits are compared",
            },
            Rule {
                key: "distill.unlabelled",
                is_set: !unlabelled.is_empty(),
                is_allowed: file.task == Task::SequenceClassification && *alpha < 1.0,
                needs: "`task = \"sequence-classification\"` and a `distill.alpha` below 1",
            },
            Rule {
                key: "distill.alpha",
                is_set: *alpha == 0.0,
                is_allowed: !model.crf,
                needs: "to be above 0 with `model.crf`, whose transitions are learned only from labels",
            },
        ]);
    }
    rules
}
