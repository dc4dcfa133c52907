//! Compares answers and scores with transformers' question-answering pipeline. `tests/pipeline/generate.py` writes the
//! cases.

use std::path::Path;

use kiln_predict::pipeline_answer;
use kiln_tokenize::{ContextConfig, Tokenizer};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    question: String,
    context: String,
    max_length: usize,
    stride: usize,
    max_answer_length: usize,
    windows: Vec<Window>,
    expected_answer: String,
    expected_start: usize,
    expected_end: usize,
    expected_score: f64,
}

#[derive(Deserialize)]
struct Window {
    input_ids: Vec<u32>,
    start: Vec<f32>,
    end: Vec<f32>,
}

#[test]
fn answers_are_the_pipelines() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("pipeline/cases.json")).expect("the cases are JSON");
    assert_eq!(cases.len(), 40);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kiln-tokenize/tests/tiny");
    let tokenizer = Tokenizer::from_folder(&folder).expect("the fixture is whole");
    for case in cases {
        let config = ContextConfig { stride: case.stride, max_length: case.max_length, ..ContextConfig::default() };
        let windows = tokenizer.encode_context(&case.question, &case.context, config).expect("it encodes");
        let ids: Vec<&[u32]> = windows.iter().map(|window| window.encoding.input_ids.as_slice()).collect();
        let expected: Vec<&[u32]> = case.windows.iter().map(|window| window.input_ids.as_slice()).collect();
        assert_eq!(ids, expected, "{}", case.context);
        let logits: Vec<[Vec<f32>; 2]> =
            case.windows.iter().map(|window| [window.start.clone(), window.end.clone()]).collect();
        let answer = pipeline_answer((&case.question, &case.context), &windows, &logits, case.max_answer_length);
        let expected = (case.expected_answer.as_str(), case.expected_start, case.expected_end);
        assert_eq!((answer.answer.as_str(), answer.start, answer.end), expected, "{}", case.context);
        let (ours, theirs) = (answer.score, case.expected_score);
        assert!((ours - theirs).abs() < 1e-6 + 1e-5 * theirs, "{ours} against {theirs}: {}", case.context);
    }
}
