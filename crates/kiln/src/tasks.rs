//! The tasks, one file for each: their differences in training and evaluation. Only [`train`], [`rehearse`], [`audit_data`]
//! and [`score`] list them.

pub(crate) mod sequences;
pub(crate) mod tags;
pub(crate) mod answers;
pub(crate) mod masked_lm;
pub(crate) mod folds;

use std::path::PathBuf;

use anyhow::bail;
use burn::tensor::Device;
use kiln_dataset::{Audit, Item, Lengths, Record, Source, Unplaced, audit, mend_answers};
use kiln_eval::{ByLength, Judged, SplitReport, TagSet};
use kiln_heads::Network;
use kiln_metrics::AnswerLanguage;
use kiln_predict::Predictor;
use kiln_schema::{Example, LabelId, ProblemType, Question, Split, TaggedText, Task};
use kiln_tokenize::Tokenizer;

use crate::forecast::{self, Rehearsal};
use crate::recipe::{Files, Recipe};
use crate::stages::read::{Rows, count_tokens, names, splits};
use crate::stages::settle::Plan;
use crate::{Audited, Observer, Trained, UsageError, stages};
use answers::AnswerTask;
use masked_lm::MaskedLmTask;
use sequences::Sequences;
use tags::TagTask;

/// Maximum number of mistakes in `errors.tsv`.
const MISTAKES: usize = 50;

/// Batch size for evaluation.
const BATCH_SIZE: usize = 32;

/// The result of a model for each row.
pub(crate) struct Judgement {
    /// The model's errors, as a table.
    pub errors: String,
    /// `None` for raw text.
    pub judged: Option<Judged>,
    by_length: Option<ByLength>,
}

impl Judgement {
    /// The result for these items. The length of their texts is counted in characters.
    pub fn new<T: Item>(errors: String, judged: Judged, items: &[T]) -> Self {
        let length = |item: &T| {
            let (text, pair) = item.texts();
            text.chars().count() + pair.map_or(0, |pair| pair.chars().count())
        };
        let by_length = ByLength::new(&judged, &items.iter().map(length).collect::<Vec<_>>());
        Self { errors, judged: Some(judged), by_length: Some(by_length) }
    }

    /// The empty result, for raw text.
    pub fn none() -> Self {
        Self { errors: String::new(), judged: None, by_length: None }
    }

    /// The report with the scores by length added.
    pub fn complete(&self, report: SplitReport) -> SplitReport {
        SplitReport { by_length: self.by_length.clone(), ..report }
    }
}

/// The scores of a model on a labelled file.
pub(crate) struct Scored {
    pub report: SplitReport,
    pub judgement: Judgement,
}

impl Scored {
    pub fn new(report: SplitReport, judgement: Judgement) -> Self {
        Self { report: judgement.complete(report), judgement }
    }
}

/// Runs the stages of the recipe's task.
pub(crate) fn train(plan: &Plan<'_>, observer: &mut dyn Observer) -> anyhow::Result<Trained> {
    match (plan.recipe.task, plan.recipe.model.problem_type) {
        (Task::SequenceClassification, ProblemType::SingleLabelClassification) => {
            stages::run(&Sequences::<LabelId>::new(), plan, observer)
        }
        (Task::SequenceClassification, ProblemType::MultiLabelClassification) => {
            stages::run(&Sequences::<Vec<LabelId>>::new(), plan, observer)
        }
        (Task::SequenceClassification, ProblemType::Regression) => {
            stages::run(&Sequences::<f64>::new(), plan, observer)
        }
        (Task::TokenClassification, _) => stages::run(&TagTask, plan, observer),
        (Task::QuestionAnswering, _) => stages::run(&AnswerTask, plan, observer),
        (Task::MaskedLm, _) => stages::run(&MaskedLmTask, plan, observer),
    }
}

/// Rehearses the training of the recipe's task on a sample of its rows.
pub(crate) fn rehearse(plan: &Plan<'_>, observer: &mut dyn Observer) -> anyhow::Result<Rehearsal> {
    match (plan.recipe.task, plan.recipe.model.problem_type) {
        (Task::SequenceClassification, ProblemType::SingleLabelClassification) => {
            forecast::rehearse(&Sequences::<LabelId>::new(), plan, observer)
        }
        (Task::SequenceClassification, ProblemType::MultiLabelClassification) => {
            forecast::rehearse(&Sequences::<Vec<LabelId>>::new(), plan, observer)
        }
        (Task::SequenceClassification, ProblemType::Regression) => {
            forecast::rehearse(&Sequences::<f64>::new(), plan, observer)
        }
        (Task::TokenClassification, _) => forecast::rehearse(&TagTask, plan, observer),
        (Task::QuestionAnswering, _) => forecast::rehearse(&AnswerTask, plan, observer),
        (Task::MaskedLm, _) => {
            bail!(UsageError("`kiln forecast` needs labelled data; the recipe reads raw text".to_owned()))
        }
    }
}

/// Audits a recipe's data. Without a tokenizer, there are no lengths in tokens.
pub(crate) fn audit_data(
    recipe: &Recipe,
    files: &Files<PathBuf>,
    tokenizer: Option<&Tokenizer>,
    observer: &mut dyn Observer,
) -> anyhow::Result<Audited> {
    let audit = match (recipe.task, recipe.model.problem_type) {
        (Task::SequenceClassification, ProblemType::SingleLabelClassification) => {
            audit_rows(&splits::<Example>(recipe, files, observer)?, tokenizer, observer)
        }
        (Task::SequenceClassification, ProblemType::MultiLabelClassification) => {
            audit_rows(&splits::<Example<Vec<LabelId>>>(recipe, files, observer)?, tokenizer, observer)
        }
        (Task::SequenceClassification, ProblemType::Regression) => {
            audit_rows(&splits::<Example<f64>>(recipe, files, observer)?, tokenizer, observer)
        }
        (Task::TokenClassification, _) => {
            audit_rows(&splits::<TaggedText>(recipe, files, observer)?, tokenizer, observer)
        }
        (Task::QuestionAnswering, _) => {
            let rows = splits::<Question>(recipe, files, observer)?;
            // As in training: only questions that are trained on are left out.
            let offsets = |(split, questions): (Split, &Vec<Question>)| {
                let unplaced = if split == Split::Train { Unplaced::Drop } else { Unplaced::Keep };
                (split, mend_answers(&mut questions.clone(), unplaced).to_string())
            };
            let answer_offsets = rows.items.iter().map(offsets).collect();
            return Ok(Audited { audit: audit_rows(&rows, tokenizer, observer)?, answer_offsets });
        }
        (Task::MaskedLm, _) => {
            bail!(UsageError("`kiln data audit` checks labelled data; a corpus has no labels".to_owned()))
        }
    };
    Ok(Audited { audit: audit?, answer_offsets: Vec::new() })
}

fn audit_rows<T: Record>(
    rows: &Rows<T>,
    tokenizer: Option<&Tokenizer>,
    observer: &mut dyn Observer,
) -> anyhow::Result<Audit> {
    let lengths = match tokenizer {
        Some(tokenizer) => Some(count_tokens(tokenizer, &rows.items, observer)?),
        None => None::<Lengths>,
    };
    Ok(audit(&rows.items, names::<T>(&rows.labels), lengths))
}

/// The scores of a trained model on a labelled file, or of a masked language model on raw text.
pub(crate) fn score(
    predictor: &Predictor,
    source: Source,
    language: Option<AnswerLanguage>,
    device: &Device,
    observer: &mut dyn Observer,
) -> anyhow::Result<Scored> {
    match predictor.network() {
        Network::SequenceClassification { model, labels, problem_type } => {
            let model = (model, labels);
            match problem_type {
                ProblemType::SingleLabelClassification => {
                    sequences::score::<LabelId>(predictor, model, &source, device)
                }
                ProblemType::MultiLabelClassification => {
                    sequences::score::<Vec<LabelId>>(predictor, model, &source, device)
                }
                ProblemType::Regression => sequences::score::<f64>(predictor, model, &source, device),
            }
        }
        Network::TokenClassification { model, labels, tag_scheme, .. } => {
            tags::score(predictor, model, TagSet { labels, scheme: *tag_scheme }, source, device)
        }
        Network::QuestionAnswering { model } => answers::score(predictor, model, language, source, device),
        Network::MaskedLm { model } => masked_lm::score(predictor, model, &source, device, observer),
    }
}
