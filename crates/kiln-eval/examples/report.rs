//! Prints a report of six logits: `cargo run --release -p kiln-eval --example report`
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::collections::BTreeMap;

use kiln_eval::{Page, Report, evaluate, mistakes, to_tsv};
use kiln_schema::{Example, LabelSet, Split, Task};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let labels = LabelSet::new(["negative", "positive"])?;
    let examples = [("房间很脏", 0), ("屏幕太暗", 1), ("很好看的书", 1)].map(|(text, target)| Example {
        text: text.to_owned(),
        text_pair: None,
        target,
    });
    let targets: Vec<usize> = examples.iter().map(|example| example.target).collect();
    let logits = [2.0, -1.0, 0.5, 0.1, -3.0, 1.0];

    let report = Report {
        task: Task::SequenceClassification,
        model: "none".to_owned(),
        backend: "none".to_owned(),
        splits: BTreeMap::from([(Split::Test, evaluate(&logits, &targets, &labels)?)]),
        train: None,
    };
    println!("{}", serde_json::to_string_pretty(&report)?);
    let errors = to_tsv(&mistakes(&logits, &targets, 50), &examples, &labels);
    let page = Page { report: &report, epochs: &[], errors: &errors, audit: "", settings: "", machine: "" };
    println!("{} bytes of HTML", page.to_html().len());
    print!("{errors}");
    Ok(())
}
