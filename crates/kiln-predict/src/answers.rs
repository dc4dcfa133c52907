use burn::tensor::{Device, Tensor};
use kiln_heads::QuestionAnswerer;
use kiln_metrics::softmax;
use kiln_tokenize::{ContextWindow, Encoding, by_length, pad};

use crate::{AnswerPrediction, inputs};

/// How [`best_answer`] picks a passage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnswerConfig {
    /// The most tokens of an answer.
    pub max_answer_length: usize,
    /// How many of the best starts and ends of each window are considered.
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
#[derive(Clone, Copy, Debug)]
struct Passage {
    /// The first character.
    start: usize,
    /// Behind the last character.
    end: usize,
    /// The sum of two logits, or a probability.
    score: f64,
}

/// The passage with the highest sum of start and end logit over all windows of a context: SQuAD's own rule, by which
/// evaluation picks answers. Its score is its probability among the best passages.
pub fn best_answer(
    (question, context): (&str, &str),
    windows: &[ContextWindow],
    logits: &[[Vec<f32>; 2]],
    config: AnswerConfig,
) -> AnswerPrediction {
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
    // Probabilities over the passages, and over no answer where there may be none.
    let weight = |score: f64| (score - highest.max(null)).exp();
    let null_weight = if config.null_threshold.is_some() || passages.is_empty() { weight(null) } else { 0.0 };
    let total: f64 = passages.iter().map(|passage| weight(passage.score)).sum::<f64>() + null_weight;
    match passages.first().filter(|_| !is_null) {
        None => no_answer(question, null_weight / total),
        Some(&best) => answer(question, context, Passage { score: weight(best.score) / total, ..best }),
    }
}

/// The most tokens of an answer by transformers' question-answering pipeline.
pub const PIPELINE_ANSWER_LENGTH: usize = 15;

/// The most tokens of a window by transformers' question-answering pipeline.
pub const PIPELINE_MAX_LENGTH: usize = 384;

/// The answer and the score of transformers' question-answering pipeline (version 4; version 5 has none) with its defaults.
///
/// In each window the probability of a passage is that of its first token among all starts times that of its last token
/// among all ends; the context's tokens take part, and the first special token, which stands for no answer and is never
/// given. The best passages are extended to whole words, and the probabilities of equal texts are added up, over all
/// windows. Two things differ: white space around an answer is not part of it, and a SentencePiece token of Chinese is not
/// extended, as its word would be the whole sentence.
pub fn pipeline_answer(
    (question, context): (&str, &str),
    windows: &[ContextWindow],
    logits: &[[Vec<f32>; 2]],
    max_answer_length: usize,
) -> AnswerPrediction {
    let characters: Vec<char> = context.chars().collect();
    let text_of = |passage: &Passage| -> String {
        let text: String = characters[passage.start..passage.end].iter().collect();
        text.to_lowercase()
    };
    let mut candidates: Vec<(String, Passage)> = Vec::new();
    let mut null = 1.0;
    for (window, logits) in windows.iter().zip(logits) {
        let probabilities = logits.each_ref().map(|logits| window_probabilities(logits, window));
        null = f64::min(null, probabilities[0][0] * probabilities[1][0]);
        for passage in pipeline_passages(window, &probabilities, max_answer_length) {
            let text = text_of(&passage);
            match candidates.iter_mut().find(|(known, _)| *known == text) {
                Some((_, known)) => known.score += passage.score,
                None => candidates.push((text, passage)),
            }
        }
    }
    // The first of equally good ones.
    let best = candidates.into_iter().map(|(_, passage)| passage).reduce(|a, b| if b.score > a.score { b } else { a });
    match best {
        None => no_answer(question, null),
        Some(best) => answer(question, context, best),
    }
}

/// The probabilities of the first special token, at 0, and of the context's tokens behind it.
fn window_probabilities(logits: &[f32], window: &ContextWindow) -> Vec<f64> {
    let context = &logits[window.first..window.first + window.spans.len()];
    softmax(&[&logits[..1], context].concat())
}

/// The best passages of a window, extended to whole words.
fn pipeline_passages(window: &ContextWindow, [starts, ends]: &[Vec<f64>; 2], max_answer_length: usize) -> Vec<Passage> {
    /// More than one, as some may become the same answer.
    const CANDIDATES: usize = 12;
    let tokens = window.spans.len();
    let from = |start: usize| (start..tokens.min(start + max_answer_length)).map(move |end| (start, end));
    let mut spans: Vec<(usize, usize, f64)> =
        (0..tokens).flat_map(from).map(|(start, end)| (start, end, starts[start + 1] * ends[end + 1])).collect();
    spans.sort_by(|a, b| b.2.total_cmp(&a.2));
    let passage = |&(start, end, score): &(usize, usize, f64)| Passage {
        start: window.words[start].0,
        end: window.words[end].1,
        score,
    };
    spans.iter().take(CANDIDATES).map(passage).filter(|passage| passage.start < passage.end).collect()
}

fn no_answer(question: &str, score: f64) -> AnswerPrediction {
    AnswerPrediction { question: question.to_owned(), answer: String::new(), start: 0, end: 0, score }
}

/// A passage without the white space around it, which a SentencePiece token may begin with.
fn answer(question: &str, context: &str, Passage { start, end, score }: Passage) -> AnswerPrediction {
    let answer: String = context.chars().skip(start).take(end - start).collect();
    let start = start + (answer.chars().count() - answer.trim_start().chars().count());
    let answer = answer.trim().to_owned();
    let end = start + answer.chars().count();
    AnswerPrediction { question: question.to_owned(), answer, start, end, score }
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

    #[test]
    fn equal_texts_share_their_probabilities() {
        let windows = [window(0), window(4)];
        let mut logits = [[vec![0.0; 8], vec![0.0; 8]], [vec![0.0; 8], vec![0.0; 8]]];
        // "a" in both windows; alone, "b" in the second is more probable than either.
        (logits[0][0][3], logits[0][1][3]) = (4.0, 4.0);
        (logits[1][0][3], logits[1][1][3]) = (4.0, 4.0);
        (logits[1][0][4], logits[1][1][4]) = (4.5, 4.5);
        let answer = pipeline_answer(("?", "axxxAbxx"), &windows, &logits, 15);
        assert_eq!((answer.answer.as_str(), answer.start, answer.end), ("a", 0, 1));
        // Of five that take part, one has e⁴ and four have 1; in the second window one has e⁴·⁵ too, and three have 1.
        let (a, b) = (4f64.exp(), 4.5f64.exp());
        let expected = (a / (a + 4.0)).powi(2) + (a / (a + b + 3.0)).powi(2);
        assert!((answer.score - expected).abs() < 1e-9, "{} against {expected}", answer.score);
    }

    #[test]
    fn an_empty_context_has_no_answer() {
        let window = ContextWindow { spans: vec![], words: vec![], ..window(0) };
        let answer = pipeline_answer(("?", ""), &[window], &[[vec![0.5; 8], vec![0.5; 8]]], 15);
        assert_eq!((answer.answer.as_str(), answer.score), ("", 1.0));
    }
}
