//! Question answering: questions and the passages that answer them.

use anyhow::bail;
use burn::module::Module;
use burn::tensor::Device;
use kiln_dataset::{Format, Source, Unplaced, mend_answers, read};
use kiln_eval::{Judged, in_context, tsv};
use kiln_heads::{Calibration, Network, QuestionAnswerer};
use kiln_metrics::AnswerLanguage;
use kiln_predict::Predictor;
use kiln_schema::{Answer, Question, Split, Splits};
use kiln_tokenize::{ContextConfig, ContextWindow, Encoding, Tokenizer};
use kiln_train::{Answered, AskedSet, EvaluationSet, Objective};

use super::{BATCH_SIZE, Judgement, MISTAKES, Scored};
use crate::stages::features::cache_tokens;
use crate::stages::fit::{FitOptions, Fitted, fit};
use crate::stages::model::{prepare, pretrained, scope};
use crate::stages::read::{RowLengths, Rows, audit_rows, rows};
use crate::stages::settle::Plan;
use crate::stages::teacher::{self, Lessons, Teacher, check_tokens, taught};
use crate::stages::{Described, Learner, Stages, Tokens};
use crate::{Fold, Observer};

/// The stages of question answering.
pub(crate) struct AnswerTask;

/// The windows of each question's context.
type Windows = Vec<Vec<ContextWindow>>;

fn encode(tokenizer: &Tokenizer, questions: &[Question]) -> Result<Windows, kiln_tokenize::Error> {
    let pairs = questions.iter().map(|question| (question.question.as_str(), question.context.as_str()));
    tokenizer.encode_contexts(pairs, ContextConfig::default())
}

/// The encodings of all windows.
fn encodings(questions: &Windows) -> impl Iterator<Item = &Encoding> {
    questions.iter().flatten().map(|window| &window.encoding)
}

impl Stages for AnswerTask {
    type Rows = Rows<Question>;
    type Encoded = Splits<Windows>;
    type Model = QuestionAnswerer;

    fn read(&self, plan: &Plan<'_>, observer: &mut dyn Observer) -> anyhow::Result<Rows<Question>> {
        let Rows { items, labels } = rows::<Question>(plan, false, observer)?;
        let items = items.map(|split, mut questions| {
            let unplaced = if split == Split::Train { Unplaced::Drop } else { Unplaced::Keep };
            let offsets = mend_answers(&mut questions, unplaced).to_string();
            let counts = offsets.lines().next().unwrap_or_default();
            observer.stage("", "kiln-dataset", &format_args!("{split}: {counts}"));
            questions
        });
        Ok(Rows { items, labels })
    }

    fn encode(
        &self,
        plan: &Plan<'_>,
        rows: &Rows<Question>,
        observer: &mut dyn Observer,
    ) -> anyhow::Result<Tokens<Self::Encoded>> {
        let encoded = rows.items.as_ref().try_map(|_, questions| encode(plan.tokenizer(), questions))?;
        if let Some(teacher) = &plan.teacher {
            let theirs = encode(&teacher.tokenizer, &rows.items.train)?;
            check_tokens(encodings(&encoded.train), encodings(&theirs))?;
        }
        let whole = |windows: &Vec<ContextWindow>| windows.first().map_or(0, |window| window.encoding.full_length);
        let lengths = RowLengths {
            train: encoded.train.iter().flatten().map(|window| window.encoding.input_ids.len()).collect(),
            whole: encoded.as_ref().map(|_, questions| questions.iter().map(whole).collect()),
        };
        let (longest, audit) = audit_rows(plan, rows, lengths, observer)?;
        let sum = |windows: &Vec<ContextWindow>| windows.iter().map(|window| window.encoding.input_ids.len()).sum();
        let tokens: Splits<Vec<usize>> = encoded.as_ref().map(|_, items| items.iter().map(sum).collect());
        Ok(Tokens { encoded, num_rows: tokens.train.len(), longest, audit, tokens })
    }

    fn pick(&self, rows: &Rows<Question>, picked: &Splits<Vec<usize>>) -> Rows<Question> {
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

    fn model(&self, plan: &Plan<'_>, _rows: &Rows<Question>) -> anyhow::Result<Described<QuestionAnswerer>> {
        let config = pretrained(plan, 2);
        let mut pretrained = config.question_answerer(&plan.checkpoint.folder, plan.device)?;
        prepare(plan, &mut pretrained.model.bert)?;
        let QuestionAnswerer { bert, qa_outputs } = &pretrained.model;
        let head = format!("{} parameters; each token → start, end", qa_outputs.num_params());
        let teacher = match teacher::load(plan)? {
            None => None,
            Some(Network::QuestionAnswering { model }) => Some(Teacher { model, columns: None }),
            Some(other) => bail!(teacher::wrong_task(plan, &other)),
        };
        Ok(Described { encoder_parameters: bert.parameter_count(), head, pretrained, teacher })
    }

    fn fit(
        &self,
        plan: &Plan<'_>,
        rows: &Rows<Question>,
        encoded: Self::Encoded,
        learner: Learner<QuestionAnswerer>,
        observer: &mut dyn Observer,
    ) -> anyhow::Result<Fitted<QuestionAnswerer>> {
        let Learner { mut model, teacher } = learner;
        let windows: Vec<&Encoding> = encoded.iter().flat_map(|(_, questions)| encodings(questions)).collect();
        let encoder_seconds = cache_tokens(plan, &mut model.bert, &windows, observer)?;
        let pad_token_id = plan.tokenizer().pad_token_id();
        let language = plan.recipe.data.answer_language;
        let sets = rows.items.clone().zip(encoded).map(|_, (questions, windows)| {
            AskedSet::new(questions, windows, pad_token_id).with_answer_language(language)
        });
        let lessons = teacher.map(|teacher| Lessons { teacher, set: None });
        let taught = taught(plan, sets, lessons, observer)?;
        let options = FitOptions {
            metric: plan.recipe.metric(),
            scope: scope(plan, &model.bert),
            encoder_seconds,
            teacher_seconds: taught.seconds,
            judge: |output: &Answered, set: &Objective<AskedSet>, _: Option<&Calibration>| judge(output, set.set()),
        };
        fit(plan, &taught.sets, model, options, observer)
    }

    fn network(&self, _rows: Rows<Question>, model: QuestionAnswerer) -> Network {
        Network::QuestionAnswering { model }
    }
}

/// The scores of a trained model on a labelled file.
pub(crate) fn score(
    predictor: &Predictor,
    model: &QuestionAnswerer,
    language: Option<AnswerLanguage>,
    source: Source,
    device: &Device,
) -> anyhow::Result<Scored> {
    let format = match source.format {
        // The ending alone has been taken for that of JSON Lines or of a table: questions may end in `.json` or `.txt`.
        None | Some(Format::Jsonl | Format::Tsv) => Format::of_questions(&source.path),
        Some(format) => format,
    };
    let source = Source { format: Some(format), ..source };
    let (mut questions, _) = read::<Question>(&[source], None)?;
    mend_answers(&mut questions, Unplaced::Keep);
    let windows = encode(predictor.tokenizer(), &questions)?;
    let pad_token_id = predictor.tokenizer().pad_token_id();
    let set = AskedSet::new(questions, windows, pad_token_id).with_answer_language(language);
    let output = set.output(model, BATCH_SIZE, device);
    Ok(Scored::new(set.report(&output)?, judge(&output, &set)))
}

fn judge(output: &Answered, set: &AskedSet) -> Judgement {
    let judged = Judged::answers(set.scores(output).into_iter().map(|(_, f1)| f1));
    Judgement::new(errors(output, set), judged, set.questions())
}

/// The worst answers: identifier, F1, score, prediction, target, question and context.
fn errors(output: &Answered, set: &AskedSet) -> String {
    let scores = set.scores(output);
    let mut order: Vec<usize> = (0..scores.len()).filter(|&at| scores[at].1 < 1.0).collect();
    order.sort_by(|&a, &b| {
        scores[a].1.total_cmp(&scores[b].1).then(output.answers[b].score.total_cmp(&output.answers[a].score))
    });
    let cells = |at: usize| {
        let (question, answer) = (&set.questions()[at], &output.answers[at]);
        let right = question.answers.first();
        let target = right.map_or(String::new(), |right| right.text.clone());
        let context = right.and_then(|right| passage(&question.context, right)).unwrap_or_default();
        let [f1, score] = [scores[at].1, answer.score].map(|number| format!("{number:.4}"));
        [question.id.clone(), f1, score, answer.text.clone(), target, question.question.clone(), context]
    };
    let columns = ["id", "f1", "score", "prediction", "target", "question", "context"];
    tsv(columns, order.into_iter().take(MISTAKES).map(cells))
}

/// A right answer with its surrounding context; `None` if it is not in the context.
fn passage(context: &str, answer: &Answer) -> Option<String> {
    let (start, _) = context.char_indices().nth(answer.start)?;
    let passage = start..start + answer.text.len();
    context.get(passage.clone()).map(|_| in_context(context, passage))
}
