//! `kiln eval`: metrics of a labelled file.

use std::collections::BTreeMap;

use anyhow::Context;
use burn::tensor::Device;
use kiln_backend::Backend;
use kiln_dataset::{Column, read};
use kiln_eval::{Report, evaluate, mistakes, to_tsv};
use kiln_predict::Predictor;
use kiln_schema::{Example, Split, Task};

use crate::cli::EvalArgs;
use crate::commands::predict::source;
use crate::commands::train::MISTAKES;
use crate::console;
use crate::recipe::available;
use crate::run_folder::write_report;

pub fn run<B: Backend>(arguments: &EvalArgs, json: bool, device: &Device) -> anyhow::Result<()> {
    let mut source = source(&arguments.model, &arguments.data, &arguments.columns)?;
    if arguments.label.is_some() {
        source.columns.label = arguments.label.clone();
    }
    let default = if source.header { Column::from("label") } else { Column::Index(1) };
    source.columns.label.get_or_insert(default);

    let precision = available::<B>(arguments.precision.precision)?;
    let predictor = Predictor::from_folder(&arguments.model, device)?.with_precision(precision);
    let (examples, labels) = read(&[source], Some(predictor.labels().clone()))?;
    let logits = predictor.logits(&predictor.encode(examples.iter().map(Example::texts))?);
    let targets: Vec<usize> = examples.iter().map(|example| example.target).collect();
    let split = evaluate(&logits, &targets, &labels);
    let report = Report {
        task: Task::SequenceClassification,
        model: arguments.model.display().to_string(),
        backend: B::NAME.to_owned(),
        splits: BTreeMap::from([(Split::Test, split.clone())]),
        train: None,
    };
    if let Some(out) = &arguments.out {
        std::fs::create_dir_all(out).with_context(|| format!("{}: cannot be made", out.display()))?;
        write_report(out, &report, &to_tsv(&mistakes(&logits, &targets, MISTAKES), &examples, &labels))?;
    }
    if json {
        return console::json(&report);
    }
    let [low, high] = split.accuracy_interval;
    console::result(format_args!(
        "examples {}  loss {:.4}  accuracy {:.4} (95 % interval {low:.4} to {high:.4})  macro F1 {:.4}",
        split.examples, split.loss, split.accuracy, split.macro_f1
    ));
    for label in &split.labels {
        console::result(format_args!(
            "{:<16} precision {:.4}  recall {:.4}  F1 {:.4}  support {}",
            label.label, label.precision, label.recall, label.f1, label.support
        ));
    }
    Ok(())
}
