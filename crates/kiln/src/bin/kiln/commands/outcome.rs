//! What a user sees of a training that ended: the report, and what to do with the model.

use std::path::Path;

use kiln::Trained;
use kiln_eval::{Report, Scores};
use kiln_schema::Task;

use crate::console::{self, OutputError};

/// The report as JSON, or as a table with the next commands and the run's folder.
pub fn print(trained: &Trained, json: bool) -> anyhow::Result<()> {
    if json {
        return console::json(&trained.report);
    }
    print_splits(&trained.report)?;
    console::result("")?;
    for (name, command) in next(trained) {
        console::result(format_args!("{name:<10}{command}"))?;
    }
    Ok(console::result(format_args!("\n{}", trained.folder.display()))?)
}

/// The commands to predict and to evaluate, and the report's path.
fn next(trained: &Trained) -> [(&'static str, String); 3] {
    let model = quoted(&trained.model());
    let text = match (trained.report.task, trained.has_pairs) {
        (Task::QuestionAnswering, _) => "predict --text QUESTION --text-pair CONTEXT",
        (Task::MaskedLm, _) => "fill-mask --text 'TEXT WITH [MASK]'",
        (_, true) => "predict --text TEXT --text-pair 'SECOND TEXT'",
        (_, false) => "predict --text TEXT",
    };
    let data = trained.test_file.as_deref().map_or_else(|| "FILE".to_owned(), quoted);
    [
        ("predict", format!("kiln {text} --model {model}")),
        ("evaluate", format!("kiln eval --data {data} --model {model}")),
        ("report", trained.folder.join("report.html").display().to_string()),
    ]
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |char: char| char.is_alphanumeric() || "/._-+=:@,".contains(char);
    if path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

/// A row for each split: its examples, and the numbers of its report.
pub fn print_splits(report: &Report) -> Result<(), OutputError> {
    let Some(first) = report.splits.values().next() else { return Ok(()) };
    let heads: String = first.named().iter().map(|(name, _)| format!(" {name:>16}")).collect();
    console::result(format_args!("\n{:<10} {:>8}{heads}", "split", "examples"))?;
    for (split, report) in &report.splits {
        let numbers: String = report.named().iter().map(|(_, number)| format!(" {number:>16.4}")).collect();
        console::result(format_args!("{split:<10} {:>8}{numbers}", report.examples))?;
        if let Scores::Labels(scores) = &report.scores {
            let [low, high] = scores.accuracy_interval;
            let roc_auc = scores.roc_auc.map(|area| format!(", ROC-AUC {area:.4}")).unwrap_or_default();
            let other = format!("{roc_auc}, MCC {:.4}", scores.mcc);
            console::result(format_args!("{:<19} accuracy within {low:.4} to {high:.4} (95 %){other}", ""))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_a_shell() {
        assert_eq!(quoted(Path::new("runs/a-1/model")), "runs/a-1/model");
        assert_eq!(quoted(Path::new("my runs/it's")), "'my runs/it'\\''s'");
    }
}
