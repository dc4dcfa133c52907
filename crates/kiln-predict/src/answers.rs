use std::collections::HashMap;

use kiln_heads::Passage;
use kiln_metrics::softmax;
use kiln_tokenize::ContextWindow;

use crate::AnswerPrediction;

/// The maximum number of tokens of an answer in transformers' question-answering pipeline.
pub const PIPELINE_ANSWER_LENGTH: usize = 15;

/// The maximum number of tokens of a window in transformers' question-answering pipeline.
pub const PIPELINE_MAX_LENGTH: usize = 384;

/// The answer and the score of transformers' question-answering pipeline (version 4; version 5 has none) with its defaults.
///
/// In each window, the probability of a passage is that of its first token as the start times that of its last token as the
/// end. The softmax is over the context's tokens and the first special token, which means "no answer" and is never
/// predicted. The best passages are extended to whole words, and the probabilities of equal texts are added up over all
/// windows.
///
/// There are two differences: surrounding white space is not part of an answer, and a SentencePiece token of Chinese is not
/// extended, because its word may be the whole sentence.
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
    let mut candidates: Vec<Passage> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut null = 1.0;
    for (window, logits) in windows.iter().zip(logits) {
        let probabilities = logits.each_ref().map(|logits| window_probabilities(logits, window));
        null = f64::min(null, probabilities[0][0] * probabilities[1][0]);
        for passage in pipeline_passages(window, &probabilities, max_answer_length) {
            let place = *places.entry(text_of(&passage)).or_insert(candidates.len());
            match candidates.get_mut(place) {
                Some(known) => known.score += passage.score,
                None => candidates.push(passage),
            }
        }
    }
    // Of equally good passages, the first is used.
    let best = candidates.into_iter().reduce(|a, b| if b.score > a.score { b } else { a });
    prediction(question, context, best.unwrap_or(Passage::none(null)))
}

/// The probability of the first special token, at index 0, followed by those of the context's tokens.
fn window_probabilities(logits: &[f32], window: &ContextWindow) -> Vec<f64> {
    let context = &logits[window.first..window.first + window.spans.len()];
    softmax(&[&logits[..1], context].concat())
}

/// The best passages of a window, extended to whole words.
fn pipeline_passages(window: &ContextWindow, [starts, ends]: &[Vec<f64>; 2], max_answer_length: usize) -> Vec<Passage> {
    /// Several candidates, because some of them may become the same answer.
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

fn prediction(question: &str, context: &str, passage: Passage) -> AnswerPrediction {
    let (Passage { start, end, score }, answer) = passage.trimmed(context);
    AnswerPrediction { question: question.to_owned(), answer, start, end, score }
}

#[cfg(test)]
mod tests {
    use kiln_tokenize::Encoding;

    use super::*;

    fn window(first_character: usize) -> ContextWindow {
        let encoding =
            Encoding { input_ids: vec![0; 8], token_type_ids: vec![0; 8], full_length: 8, full_length_is_exact: true };
        let spans: Vec<(usize, usize)> = (first_character..first_character + 4).map(|at| (at, at + 1)).collect();
        ContextWindow { encoding, first: 3, words: spans.clone(), spans }
    }

    #[test]
    fn equal_texts_share_their_probabilities() {
        let windows = [window(0), window(4)];
        let mut logits = [[vec![0.0; 8], vec![0.0; 8]], [vec![0.0; 8], vec![0.0; 8]]];
        // "a" is in both windows. "b" in the second window is more probable than each of them alone.
        (logits[0][0][3], logits[0][1][3]) = (4.0, 4.0);
        (logits[1][0][3], logits[1][1][3]) = (4.0, 4.0);
        (logits[1][0][4], logits[1][1][4]) = (4.5, 4.5);
        let answer = pipeline_answer(("?", "axxxAbxx"), &windows, &logits, 15);
        assert_eq!((answer.answer.as_str(), answer.start, answer.end), ("a", 0, 1));
        // Each softmax is over five tokens. In the first window one has e⁴ and four have 1. In the second window one has e⁴,
        // one has e⁴·⁵ and three have 1.
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
