use std::borrow::Cow;
use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};
use kiln_eval::{SplitReport, evaluate_answers};
use kiln_heads::{
    AnswerConfig, AnswerLogits, QuestionAnswerer, answer_logits, answer_loss_sum, best_answer, inputs, without_padding,
};
use kiln_metrics::{AnswerLanguage, answer_scores, cross_entropy};
use kiln_schema::Question;
use kiln_tokenize::{ContextWindow, Encoding, lengths, pad};

use crate::targets::right;
use crate::{BatchLoss, Comparison, Dataset, EvaluationSet, LogitSet, TrainingSet};

/// Questions with their contexts in windows. A row is a window, and its target is the first answer that is completely in the
/// window, or the first token if there is none.
#[derive(Clone, Debug)]
pub struct AskedSet {
    questions: Vec<Question>,
    windows: Vec<Vec<ContextWindow>>,
    encodings: Vec<Encoding>,
    lengths: Vec<usize>,
    /// The first and last token of the target of each row.
    targets: Vec<(usize, usize)>,
    language: AnswerLanguage,
    /// Whether at least one question has no answer.
    nulls: bool,
    pad_token_id: u32,
}

/// A model's answers to all questions.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The logits of each row.
    pub logits: AnswerLogits,
    /// One answer per question.
    pub answers: Vec<Answer>,
}

/// A model's answer to a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The passage; empty if the model finds no answer.
    pub text: String,
    /// The probability of the passage among the best passages.
    pub score: f64,
}

impl AskedSet {
    /// Questions, with the windows of each.
    ///
    /// # Panics
    /// When there is not one list of windows for each question.
    pub fn new(questions: Vec<Question>, windows: Vec<Vec<ContextWindow>>, pad_token_id: u32) -> Self {
        assert_eq!(questions.len(), windows.len(), "windows for each question");
        let passages = |question: &Question| -> Vec<_> {
            // No token covers white space at the edge of an answer.
            let passage = |answer: &kiln_schema::Answer| {
                let start = answer.start + answer.text.chars().take_while(|char| char.is_whitespace()).count();
                start..start + answer.text.trim().chars().count()
            };
            question.answers.iter().map(passage).collect()
        };
        let mut targets = Vec::new();
        for (question, windows) in questions.iter().zip(&windows) {
            let passages = passages(question);
            let target = |window: &ContextWindow| {
                passages.iter().find_map(|passage| window.tokens(passage.clone())).unwrap_or((0, 0))
            };
            targets.extend(windows.iter().map(target));
        }
        let encodings: Vec<Encoding> = windows.iter().flatten().map(|window| window.encoding.clone()).collect();
        let language = AnswerLanguage::infer(questions.iter().map(|question| question.context.as_str()));
        let nulls = questions.iter().any(|question| question.answers.is_empty());
        Self { lengths: lengths(&encodings), encodings, questions, windows, targets, language, nulls, pad_token_id }
    }

    /// Sets the language in which answers are compared. `None` keeps the language of most of the contexts.
    pub fn with_answer_language(self, language: Option<AnswerLanguage>) -> Self {
        Self { language: language.unwrap_or(self.language), ..self }
    }

    /// The exact match and F1 of each question.
    pub fn scores(&self, output: &Answered) -> Vec<(f64, f64)> {
        let score = |(question, answer): (&Question, &Answer)| {
            let answers: Vec<&str> = question.answers.iter().map(|answer| answer.text.as_str()).collect();
            answer_scores(&answer.text, &answers, self.language)
        };
        self.questions.iter().zip(&output.answers).map(score).collect()
    }

    /// The questions.
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }
}

impl Dataset for AskedSet {
    fn rows(&self) -> usize {
        self.lengths.len()
    }

    fn lengths(&self, rows: Range<usize>) -> Cow<'_, [usize]> {
        Cow::Borrowed(&self.lengths[rows])
    }
}

impl TrainingSet for AskedSet {
    type Model = QuestionAnswerer;

    fn loss(&self, model: &QuestionAnswerer, rows: &[usize], device: &Device) -> BatchLoss {
        self.labels_loss(model, self.logits(model, rows, device), rows, device)
    }
}

/// A row has two rows of logits, for the start and the end of the answer, with one logit per token.
impl LogitSet for AskedSet {
    fn logits(&self, model: &QuestionAnswerer, rows: &[usize], device: &Device) -> Tensor<2> {
        let batch_inputs = inputs(&pad(&self.encodings, rows, self.pad_token_id), device);
        let padding = batch_inputs.attention_mask.clone().equal_elem(0);
        let [batch, seq] = padding.dims();
        let logits = without_padding(model.forward(batch_inputs), padding);
        // stacked = [batch, 2, seq]
        Tensor::stack::<3>(logits.to_vec(), 1).reshape([2 * batch, seq])
    }

    fn labels_loss(&self, _: &QuestionAnswerer, logits: Tensor<2>, rows: &[usize], device: &Device) -> BatchLoss {
        let [_, seq] = logits.dims();
        let logits = logits.reshape([rows.len(), 2, seq]);
        let [starts, ends] = [0, 1].map(|part| logits.clone().narrow(1, part, 1).squeeze_dim::<2>(1));
        let first: Vec<i32> = rows.iter().map(|&row| self.targets[row].0 as i32).collect();
        let last: Vec<i32> = rows.iter().map(|&row| self.targets[row].1 as i32).collect();
        let right = right(starts.clone(), &first);
        let tensor = |ids: Vec<i32>| Tensor::<1, Int>::from_data(TensorData::new(ids, [rows.len()]), device);
        BatchLoss { sum: answer_loss_sum([starts, ends], [tensor(first), tensor(last)]), right: Some(right) }
    }

    fn logits_shape(&self, row: usize) -> [usize; 2] {
        [2, self.lengths[row]]
    }

    fn logit_tokens(&self, _row: usize) -> Vec<usize> {
        Vec::new()
    }

    fn comparison(&self) -> Comparison {
        Comparison::Softmax
    }

    fn encodings(&self) -> &[Encoding] {
        &self.encodings
    }
}

impl EvaluationSet<QuestionAnswerer> for AskedSet {
    type Output = Answered;

    fn output(&self, model: &QuestionAnswerer, batch_size: usize, device: &Device) -> Answered {
        let windows: Vec<&ContextWindow> = self.windows.iter().flatten().collect();
        let logits = answer_logits(model, &windows, self.pad_token_id, batch_size, device);
        let config = AnswerConfig { null_threshold: self.nulls.then_some(0.0), ..AnswerConfig::default() };
        let mut remaining = logits.as_slice();
        let mut answers = Vec::with_capacity(self.questions.len());
        for (question, windows) in self.questions.iter().zip(&self.windows) {
            let (window_logits, later) = remaining.split_at(windows.len());
            remaining = later;
            let (passage, text) = best_answer(windows, window_logits, config).trimmed(&question.context);
            answers.push(Answer { text, score: passage.score });
        }
        Answered { logits, answers }
    }

    fn report(&self, output: &Answered) -> Result<SplitReport, kiln_eval::Error> {
        let mut loss_sum = 0.0;
        for ([start, end], &(first, last)) in output.logits.iter().zip(&self.targets) {
            let losses = cross_entropy(start, start.len(), &[first]) + cross_entropy(end, end.len(), &[last]);
            loss_sum += losses / 2.0;
        }
        let loss = loss_sum / self.targets.len().max(1) as f64;
        evaluate_answers(loss, &self.scores(output), self.language)
    }
}

#[cfg(test)]
mod tests {
    use kiln_schema::Answer;
    use kiln_tokenize::{ContextConfig, Tokenizer};

    use super::*;

    #[test]
    fn white_space_around_an_answer_is_no_part_of_its_tokens() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../kiln-tokenize/tests/tiny");
        let tokenizer = Tokenizer::from_folder(folder.as_ref()).expect("the fixture is whole");
        let target = |text: &str, start| {
            let answers = vec![Answer { text: text.to_owned(), start }];
            let (question, context) = ("房".to_owned(), "房 间 房".to_owned());
            let question = Question { id: "1".to_owned(), question, context, answers };
            let pairs = [(question.question.as_str(), question.context.as_str())];
            let windows = tokenizer.encode_contexts(pairs, ContextConfig::default()).expect("known");
            AskedSet::new(vec![question], windows, 0).targets[0]
        };
        assert_eq!(target(" 间 ", 1), target("间", 2));
        assert_ne!(target("间", 2), (0, 0));
    }
}
