//! Computes a report from logits: `cargo run --release -p kiln-metrics --example scores`
#![expect(clippy::print_stdout, reason = "an example prints")]

use kiln_metrics::{
    ConfusionMatrix, argmax, confidence_bins, cross_entropy, expected_calibration_error, softmax, wilson_interval,
};

const LABELS: [&str; 3] = ["negative", "neutral", "positive"];

fn main() {
    // A model's logits for seven reviews, `[7, 3]`, and the true labels.
    let logits: [[f32; 3]; 7] = [
        [2.1, 0.3, -1.7],
        [1.4, 1.2, -0.9],
        [-0.6, 0.8, 0.5],
        [-1.9, 0.1, 2.4],
        [-0.2, 0.9, 1.1],
        [0.7, 0.4, 0.2],
        [-2.2, -0.3, 3.0],
    ];
    let targets = [0, 0, 1, 2, 1, 0, 2];

    let predictions: Vec<usize> = logits.iter().map(|row| argmax(row)).collect();
    let confusion = ConfusionMatrix::new(&predictions, &targets, LABELS.len());
    println!("{:<10}{:>10}{:>10}{:>10}{:>10}", "", "precision", "recall", "f1", "support");
    for (label, scores) in LABELS.iter().zip(confusion.per_class()) {
        println!(
            "{label:<10}{:>10.3}{:>10.3}{:>10.3}{:>10}",
            scores.precision, scores.recall, scores.f1, scores.support
        );
    }

    let correct: Vec<bool> =
        predictions.iter().zip(&targets).map(|(prediction, target)| prediction == target).collect();
    let successes = correct.iter().filter(|&&correct| correct).count();
    let (low, high) = wilson_interval(successes, targets.len(), 1.96);
    println!("accuracy {:.3}, between {low:.3} and {high:.3} at 95 %", confusion.accuracy());
    println!("macro F1 {:.3}", confusion.macro_f1());
    println!("loss     {:.3} nats", cross_entropy(logits.as_flattened(), LABELS.len(), &targets));

    let confidences: Vec<f64> =
        logits.iter().zip(&predictions).map(|(row, &prediction)| softmax(row)[prediction]).collect();
    println!(
        "calibration error {:.3} in 10 bins",
        expected_calibration_error(&confidence_bins(&confidences, &correct, 10))
    );
}
