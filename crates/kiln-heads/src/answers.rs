//! Finds the passage of a context that answers a question, over all windows of the context.

use burn::tensor::{Device, Tensor};
use kiln_tokenize::{ContextWindow, Encoding, by_length, is_modifier, pad};

use crate::{QuestionAnswerer, inputs};

/// How [`best_answer`] picks a passage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnswerConfig {
    /// The maximum number of tokens of an answer.
    pub max_answer_length: usize,
    /// The number of the best starts and of the best ends of each window that are considered.
    pub n_best: usize,
    /// The answer is empty if the score of no answer exceeds that of the best passage by more than this. `None`: the answer
    /// is never empty for this reason, as for data in which every question has an answer.
    pub null_threshold: Option<f32>,
}

impl Default for AnswerConfig {
    /// The settings of BERT's authors, for data in which every question has an answer.
    fn default() -> Self {
        Self { max_answer_length: 30, n_best: 20, null_threshold: None }
    }
}

/// The start and end logits of each window, without padding.
pub type AnswerLogits = Vec<[Vec<f32>; 2]>;

/// Computes the logits of windows. The output has the order of the windows.
pub fn answer_logits(
    model: &QuestionAnswerer,
    windows: &[&ContextWindow],
    pad_token_id: u32,
    batch_size: usize,
    device: &Device,
) -> AnswerLogits {
    let encodings: Vec<Encoding> = windows.iter().map(|window| window.encoding.clone()).collect();
    let mut all: AnswerLogits = vec![Default::default(); windows.len()];
    for rows in by_length(&kiln_tokenize::lengths(&encodings), batch_size) {
        let batch = pad(&encodings, &rows, pad_token_id);
        let host = |logits: Tensor<2>| {
            logits.into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32")
        };
        let logits = model.forward(inputs(&batch, device)).map(host);
        for (at, row) in rows.into_iter().enumerate() {
            let tokens = encodings[row].input_ids.len();
            all[row] = logits.each_ref().map(|logits| logits[at * batch.seq..][..tokens].to_vec());
        }
    }
    all
}

/// A passage of a context.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Passage {
    /// The first character.
    pub start: usize,
    /// The position after the last character; equal to `start` for no answer.
    pub end: usize,
    /// The score: a sum of two logits, or a probability.
    pub score: f64,
}

impl Passage {
    /// No answer.
    pub fn none(score: f64) -> Self {
        Self { start: 0, end: 0, score }
    }

    /// The passage without surrounding white space, and its text. A SentencePiece token may begin with white space. A
    /// modifier of the last character, such as an accent that a WordPiece token leaves out, is added to the passage.
    pub fn trimmed(self, context: &str) -> (Self, String) {
        let modifiers = context.chars().skip(self.end).take_while(|c| is_modifier(*c)).count();
        let length = if self.start < self.end { self.end + modifiers - self.start } else { 0 };
        let text: String = context.chars().skip(self.start).take(length).collect();
        let start = self.start + (text.chars().count() - text.trim_start().chars().count());
        let text = text.trim().to_owned();
        let end = start + text.chars().count();
        if text.is_empty() { (Self::none(self.score), text) } else { (Self { start, end, ..self }, text) }
    }
}

/// The passage with the highest sum of start and end logit over all windows of a context. This is the rule of SQuAD, which
/// evaluation uses. The score is the probability among the best passages.
pub fn best_answer(windows: &[ContextWindow], logits: &[[Vec<f32>; 2]], config: AnswerConfig) -> Passage {
    let mut passages: Vec<Passage> = Vec::new();
    let mut null = f64::INFINITY;
    for (window, [starts, ends]) in windows.iter().zip(logits) {
        null = null.min(f64::from(starts[0] + ends[0]));
        let best = |logits: &[f32]| {
            let mut tokens: Vec<usize> = (window.first..window.first + window.spans.len()).collect();
            tokens.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
            tokens.truncate(config.n_best);
            tokens
        };
        let last = best(ends);
        for start in best(starts) {
            for &end in last.iter().filter(|&&end| end >= start && end < start + config.max_answer_length) {
                let (from, to) = (window.spans[start - window.first].0, window.spans[end - window.first].1);
                if from < to {
                    passages.push(Passage { start: from, end: to, score: f64::from(starts[start] + ends[end]) });
                }
            }
        }
    }
    passages.sort_by(|a, b| b.score.total_cmp(&a.score));
    passages.truncate(config.n_best);
    let highest = passages.first().map_or(null, |best| best.score);
    let is_null = config.null_threshold.is_some_and(|threshold| null - highest > f64::from(threshold));
    // Probabilities over the passages, and no answer if that is possible.
    let weight = |score: f64| (score - highest.max(null)).exp();
    let null_weight = if config.null_threshold.is_some() || passages.is_empty() { weight(null) } else { 0.0 };
    let total: f64 = passages.iter().map(|passage| weight(passage.score)).sum::<f64>() + null_weight;
    match passages.first().filter(|_| !is_null) {
        None => Passage::none(null_weight / total),
        Some(&best) => Passage { score: weight(best.score) / total, ..best },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(first_character: usize) -> ContextWindow {
        let encoding =
            Encoding { input_ids: vec![0; 8], token_type_ids: vec![0; 8], full_length: 8, full_length_is_exact: true };
        let spans: Vec<(usize, usize)> = (first_character..first_character + 4).map(|at| (at, at + 1)).collect();
        ContextWindow { encoding, first: 3, words: spans.clone(), spans }
    }

    #[test]
    fn the_best_passage_of_all_windows_wins() {
        let windows = [window(0), window(4)];
        let mut logits = [[vec![0.0; 8], vec![0.0; 8]], [vec![0.0; 8], vec![0.0; 8]]];
        logits[0][0][4] = 3.0;
        logits[0][1][3] = 5.0;
        logits[1][0][5] = 2.0;
        logits[1][1][6] = 2.5;
        // In the first window the best start (3) is after the best end (5), so its best passage is the first character, with
        // 0 + 5. In the second window, characters 6 and 7 have 2 + 2.5.
        let answer = best_answer(&windows, &logits, AnswerConfig::default());
        assert_eq!((answer.start, answer.end), (0, 1));
        logits[0][1][3] = 0.0;
        let answer = best_answer(&windows, &logits, AnswerConfig::default());
        assert_eq!((answer.start, answer.end), (6, 8));
        assert!(answer.score > 0.2 && answer.score < 1.0);
        let short = AnswerConfig { max_answer_length: 1, ..AnswerConfig::default() };
        let answer = best_answer(&windows, &logits, short);
        assert_eq!(answer.end - answer.start, 1);
        logits.iter_mut().for_each(|[start, end]| (start[0], end[0]) = (9.0, 9.0));
        let may_be_none = AnswerConfig { null_threshold: Some(0.0), ..AnswerConfig::default() };
        assert_eq!(best_answer(&windows, &logits, may_be_none).end, 0);
    }

    #[test]
    fn white_space_is_no_part_of_a_passage() {
        let passage = |start, end| Passage { start, end, score: 0.5 };
        assert_eq!(passage(1, 5).trimmed("a b é x"), (passage(2, 5), "b é".to_owned()));
        assert_eq!(passage(0, 4).trimmed("Cafe\u{301} b"), (passage(0, 5), "Cafe\u{301}".to_owned()));
        assert_eq!(passage(1, 2).trimmed("a b"), (Passage::none(0.5), String::new()));
    }
}
