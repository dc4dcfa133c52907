//! Compares the scores of Chinese answers with those of the CMRC 2018 script. `tests/cmrc/generate.py` wrote the cases.

use kiln_metrics::{AnswerLanguage, answer_scores};
use serde_json::Value;

#[test]
fn scores_are_those_of_the_script() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("cmrc/cases.json")).expect("the cases are JSON");
    assert!(cases.len() > 300, "{}", cases.len());
    for case in &cases {
        let text = |key: &str| case[key].as_str().expect("a text");
        let expected = [0, 1].map(|at| case["scores"][at].as_f64().expect("a number"));
        let (exact, f1) = answer_scores(text("prediction"), &[text("answer")], AnswerLanguage::Chinese);
        assert!(exact == expected[0] && (f1 - expected[1]).abs() < 1e-12, "{exact}, {f1} in {case}");
    }
}
