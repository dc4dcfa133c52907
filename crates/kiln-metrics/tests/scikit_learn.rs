//! Compares ROC-AUC, Matthews' correlation and macro F1 with scikit-learn's.
//! `tests/scikit_learn/generate.py` wrote the cases.

use kiln_metrics::{ConfusionMatrix, multi_label_roc_auc, roc_auc_one_vs_rest};
use serde_json::Value;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|number| number.as_f64().expect("a number")).collect()
}

fn assert_equal(ours: Option<f64>, expected: &Value, name: &str, case: &Value) {
    match (ours, expected.as_f64()) {
        (None, None) => {}
        (Some(ours), Some(expected)) if (ours - expected).abs() < 1e-12 => {}
        _ => panic!("{name}: {ours:?}, not {expected}, in {case}"),
    }
}

#[test]
fn scores_are_scikit_learns() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("scikit_learn/cases.json")).expect("the cases are JSON");
    assert_eq!(cases.len(), 35);
    assert!(cases.iter().filter(|case| case["roc_auc"].is_null()).count() > 3, "some are undefined");
    for case in &cases {
        let num_labels = case["num_labels"].as_u64().expect("a number") as usize;
        let probabilities = numbers(&case["probabilities"]);
        let targets: Vec<usize> = numbers(&case["targets"]).into_iter().map(|target| target as usize).collect();
        if case["kind"] == "several" {
            let targets: Vec<bool> = targets.iter().map(|&target| target == 1).collect();
            let ours = multi_label_roc_auc(&probabilities, &targets, num_labels);
            assert_equal(ours, &case["roc_auc"], "ROC-AUC", case);
            continue;
        }
        let row = |row: &[f64]| {
            let highest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            row.iter().position(|&probability| probability == highest).expect("it is one of them")
        };
        let predictions: Vec<usize> = probabilities.chunks(num_labels).map(row).collect();
        let confusion = ConfusionMatrix::new(&predictions, &targets, num_labels);
        assert_equal(roc_auc_one_vs_rest(&probabilities, &targets, num_labels), &case["roc_auc"], "ROC-AUC", case);
        assert_equal(Some(confusion.matthews_correlation()), &case["mcc"], "MCC", case);
        assert_equal(Some(confusion.macro_f1()), &case["macro_f1"], "macro F1", case);
    }
}
