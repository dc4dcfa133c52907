//! Training on questions and the passages that answer them.

use std::fmt::Write as _;

use burn::module::Module;
use kiln_dataset::{Unplaced, mend_answers};
use kiln_heads::{Network, Pretrained, QuestionAnswerer, TaskModel};
use kiln_schema::{Question, Split};
use kiln_tokenize::{ContextConfig, ContextWindow, Encoding};
use kiln_train::{Answered, AskedSet};

use super::job::Trained;
use super::{MISTAKES, Outcome, Run};
use crate::console::stage;

impl Run<'_> {
    pub fn answers(&self) -> anyhow::Result<Outcome> {
        let (questions, labels) = self.read::<Question>()?;
        let questions = questions.map(|split, mut questions| {
            let unplaced = if split == Split::Train { Unplaced::Drop } else { Unplaced::Keep };
            let offsets = mend_answers(&mut questions, unplaced).to_string();
            let counts = offsets.lines().next().unwrap_or_default();
            stage("", "kiln-dataset", format_args!("{split}: {counts}"));
            questions
        });
        let windows = questions.as_ref().try_map(|_, questions| {
            let pairs = questions.iter().map(|question| (question.question.as_str(), question.context.as_str()));
            self.tokenizer().encode_contexts(pairs, ContextConfig::default())
        })?;
        let lengths: Vec<usize> =
            windows.train.iter().flatten().map(|window| window.encoding.input_ids.len()).collect();
        self.show_shape(lengths.len(), &lengths);
        let whole = |windows: &Vec<ContextWindow>| windows.first().map_or(0, |window| window.encoding.full_length);
        self.audit(&questions, &labels, windows.as_ref().map(|_, all| all.iter().map(whole).collect()))?;

        let config = self.pretrained(2);
        let mut pretrained = config.question_answerer(&self.checkpoint.folder, self.device)?;
        self.prepare(&mut pretrained.model.bert);
        let Pretrained { model: QuestionAnswerer { bert, qa_outputs }, .. } = &pretrained;
        let head = format!("{} parameters; each token → start, end", qa_outputs.num_params());
        self.describe(&pretrained, bert, lengths.iter().max().copied().unwrap_or(0), &head);
        self.begin()?;
        let rows: Vec<&Encoding> =
            windows.iter().flat_map(|(_, rows)| rows.iter().flatten().map(|window| &window.encoding)).collect();
        let encoder_seconds = self.cache_tokens(&mut pretrained.model.bert, &rows)?;

        let pad_token_id = self.tokenizer().pad_token_id();
        let language = self.recipe.data.answer_language;
        let sets = questions.zip(windows).map(|_, (questions, windows)| {
            AskedSet::new(questions, windows, pad_token_id).with_answer_language(language)
        });
        let Trained { model, train, splits, judged } = self.job().fit(&sets, pretrained.model, encoder_seconds)?;
        let errors = errors(&judged, sets.test.as_ref().unwrap_or(&sets.validation));
        let network = Network::QuestionAnswering { model };
        self.finish(&TaskModel { network, config: pretrained.config }, train, splits, &errors)
    }
}

/// The worst answers: identifier, F1, score, prediction, target and question.
pub fn errors(output: &Answered, set: &AskedSet) -> String {
    let scores = set.scores(output);
    let mut order: Vec<usize> = (0..scores.len()).filter(|&at| scores[at].1 < 1.0).collect();
    order.sort_by(|&a, &b| {
        scores[a].1.total_cmp(&scores[b].1).then(output.answers[b].score.total_cmp(&output.answers[a].score))
    });
    let mut table = String::from("id\tf1\tscore\tprediction\ttarget\tquestion\n");
    for at in order.into_iter().take(MISTAKES) {
        let (question, answer) = (&set.questions()[at], &output.answers[at]);
        let flat = |text: &str| text.replace(['\t', '\n', '\r'], " ");
        let target = question.answers.first().map_or("", |answer| &answer.text);
        let (prediction, target, asked) = (flat(&answer.answer), flat(target), flat(&question.question));
        writeln!(table, "{}\t{:.4}\t{:.4}\t{prediction}\t{target}\t{asked}", question.id, scores[at].1, answer.score)
            .expect("a string takes any text");
    }
    table
}
