//! Compares entities and their scores with seqeval's. `tests/seqeval/generate.py` wrote the cases.

use kiln_metrics::{Entity, Scheme, entities, entity_scores, strict_entities};
use serde_json::Value;

fn sequences(value: &Value) -> Vec<Vec<&str>> {
    let sequences = value.as_array().expect("a list of sequences").iter();
    sequences
        .map(|tags| tags.as_array().expect("a list").iter().map(|tag| tag.as_str().expect("a tag")).collect())
        .collect()
}

#[test]
fn entities_and_scores_are_seqevals() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("seqeval/cases.json")).expect("the cases are JSON");
    assert_eq!(cases.len(), 120);
    for case in &cases {
        let scheme = if case["scheme"] == "iob2" { Scheme::Iob2 } else { Scheme::Iobes };
        let (targets, predictions) = (sequences(&case["true"]), sequences(&case["predicted"]));
        for (tags, expected) in targets.iter().zip(case["entities"].as_array().expect("a list")) {
            let found: Vec<Value> = entities(tags)
                .into_iter()
                .map(|Entity { start, end, label }| serde_json::json!([label, start, end - 1]))
                .collect();
            assert_eq!(Value::from(found), *expected, "{tags:?}");
        }
        let check = |mode: &str, entities: &dyn Fn(&[&str]) -> Vec<Entity>| {
            let all = |sequences: &[Vec<&str>]| sequences.iter().map(|tags| entities(tags)).collect::<Vec<_>>();
            let (scores, _) = entity_scores(&all(&targets), &all(&predictions));
            let found = [scores.precision, scores.recall, scores.f1];
            for (found, expected) in found.into_iter().zip(case[mode].as_array().expect("three numbers")) {
                assert!((found - expected.as_f64().expect("a number")).abs() < 1e-12, "{mode} of {case}: {found}");
            }
        };
        check("default", &|tags| entities(tags));
        check("strict", &|tags| strict_entities(tags, scheme));
    }
}
