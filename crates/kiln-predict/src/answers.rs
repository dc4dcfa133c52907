use burn::tensor::{Device, Tensor};
use kiln_heads::QuestionAnswerer;
use kiln_tokenize::{ContextWindow, Encoding, by_length, pad};

use crate::{AnswerPrediction, inputs};

/// How a passage is picked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnswerConfig {
    /// The most tokens of an answer.
    pub max_answer_length: usize,
    /// Starts and ends that are looked at in each window: the best ones.
    pub n_best: usize,
    /// An empty answer is given where its score is above the best passage's by more than this. None: never, as for data in
    /// which every question has an answer.
    pub null_threshold: Option<f32>,
}

impl Default for AnswerConfig {
    /// As BERT's authors had it, for data in which every question has an answer.
    fn default() -> Self {
        Self { max_answer_length: 30, n_best: 20, null_threshold: None }
    }
}

/// The start and end logits of each window, as far as its tokens go.
pub type AnswerLogits = Vec<[Vec<f32>; 2]>;

/// A model's logits for windows, in their order.
pub fn answer_logits(
    model: &QuestionAnswerer,
    windows: &[&ContextWindow],
    pad_token_id: u32,
    batch_size: usize,
    device: &Device,
) -> AnswerLogits {
    let encodings: Vec<Encoding> = windows.iter().map(|window| window.encoding.clone()).collect();
    let mut found: AnswerLogits = vec![Default::default(); windows.len()];
    for rows in by_length(&kiln_tokenize::lengths(&encodings), batch_size) {
        let batch = pad(&encodings, &rows, pad_token_id);
        let host = |logits: Tensor<2>| {
            logits.into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32")
        };
        let logits = model.forward(inputs(&batch, device)).map(host);
        for (at, row) in rows.into_iter().enumerate() {
            let tokens = encodings[row].input_ids.len();
            found[row] = logits.each_ref().map(|logits| logits[at * batch.seq..][..tokens].to_vec());
        }
    }
    found
}

/// The best passage of a context over all its windows.
pub fn best_answer(
    (question, context): (&str, &str),
    windows: &[ContextWindow],
    logits: &[[Vec<f32>; 2]],
    config: AnswerConfig,
) -> AnswerPrediction {
    let mut passages: Vec<(f32, usize, usize)> = Vec::new();
    let mut null = f32::INFINITY;
    for (window, [starts, ends]) in windows.iter().zip(logits) {
        null = null.min(starts[0] + ends[0]);
        let part = window.first..window.first + window.spans.len();
        let best = |logits: &[f32]| {
            let mut tokens: Vec<usize> = part.clone().collect();
            tokens.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
            tokens.truncate(config.n_best);
            tokens
        };
        for &start in &best(starts) {
            for &end in best(ends).iter().filter(|&&end| end >= start && end < start + config.max_answer_length) {
                let (from, to) = (window.spans[start - window.first].0, window.spans[end - window.first].1);
                if from < to {
                    passages.push((starts[start] + ends[end], from, to));
                }
            }
        }
    }
    passages.sort_by(|a, b| b.0.total_cmp(&a.0));
    passages.truncate(config.n_best);
    let best = passages.first().copied();
    let most = best.map_or(null, |(score, ..)| score);
    let none = config.null_threshold.is_some_and(|threshold| null - most > threshold) || best.is_none();
    // Probabilities over the passages, and no answer where there may be none.
    let weight = |score: f32| f64::from(score - most.max(null)).exp();
    let nothing = if config.null_threshold.is_some() || best.is_none() { weight(null) } else { 0.0 };
    let total: f64 = passages.iter().map(|(score, ..)| weight(*score)).sum::<f64>() + nothing;
    let question = question.to_owned();
    match best.filter(|_| !none) {
        None => AnswerPrediction { question, answer: String::new(), start: 0, end: 0, score: nothing / total },
        Some((score, start, end)) => {
            let answer: String = context.chars().skip(start).take(end - start).collect();
            // A SentencePiece token may begin with the space before it.
            let start = start + (answer.chars().count() - answer.trim_start().chars().count());
            let answer = answer.trim().to_owned();
            let end = start + answer.chars().count();
            AnswerPrediction { question, answer, start, end, score: weight(score) / total }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(first_character: usize) -> ContextWindow {
        let encoding = Encoding { input_ids: vec![0; 8], token_type_ids: vec![0; 8], full_length: 8 };
        let spans = (first_character..first_character + 4).map(|at| (at, at + 1)).collect();
        ContextWindow { encoding, first: 3, spans }
    }

    #[test]
    fn the_best_passage_of_all_windows_wins() {
        let context = "abcdefgh";
        let windows = [window(0), window(4)];
        let mut logits = [[vec![0.0; 8], vec![0.0; 8]], [vec![0.0; 8], vec![0.0; 8]]];
        logits[0][0][4] = 3.0;
        logits[0][1][3] = 5.0;
        logits[1][0][5] = 2.0;
        logits[1][1][6] = 2.5;
        // "g" to "h": 2 + 2.5; an end before its start does not count.
        let answer = best_answer(("?", context), &windows, &logits, AnswerConfig::default());
        assert_eq!((answer.answer.as_str(), answer.start, answer.end), ("a", 0, 1));
        logits[0][1][3] = 0.0;
        let answer = best_answer(("?", context), &windows, &logits, AnswerConfig::default());
        assert_eq!((answer.answer.as_str(), answer.start, answer.end), ("gh", 6, 8));
        assert!(answer.score > 0.2 && answer.score < 1.0);
        let short = AnswerConfig { max_answer_length: 1, ..AnswerConfig::default() };
        assert_eq!(best_answer(("?", context), &windows, &logits, short).answer.chars().count(), 1);
        logits.iter_mut().for_each(|[start, end]| (start[0], end[0]) = (9.0, 9.0));
        let may_be_none = AnswerConfig { null_threshold: Some(0.0), ..AnswerConfig::default() };
        assert_eq!(best_answer(("?", context), &windows, &logits, may_be_none).answer, "");
    }
}
