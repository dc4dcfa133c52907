//! Prints the result of a training: the report, some mistakes, and commands to use the model.

use std::path::Path;

use kiln::Trained;
use kiln_eval::{Report, Scores};
use kiln_schema::Task;

use crate::console::{self, OutputError};

/// Number of mistakes shown, the most confident first.
const MISTAKES: usize = 4;

/// Prints the report as JSON, or as a table with some mistakes, the next commands and the run's folder.
pub fn print(trained: &Trained, json: bool) -> anyhow::Result<()> {
    if json {
        return console::json(&trained.report);
    }
    print_splits(&trained.report)?;
    print_mistakes(&trained.folder)?;
    console::result("")?;
    for (name, command) in next(trained) {
        console::result(format_args!("{name:<10}{command}"))?;
    }
    Ok(console::result(format_args!("\n{}", trained.folder.display()))?)
}

/// Prints the first rows of `errors.tsv`, if it has predictions for texts.
fn print_mistakes(folder: &Path) -> anyhow::Result<()> {
    let table = std::fs::read_to_string(folder.join("errors.tsv")).unwrap_or_default();
    let mistakes = mistakes(&table);
    if !mistakes.is_empty() {
        console::result("\nThe most confident mistakes (errors.tsv has more):")?;
    }
    mistakes.iter().try_for_each(|mistake| Ok(console::result(mistake)?))
}

fn mistakes(table: &str) -> Vec<String> {
    let mut rows = table.lines().map(|row| row.split('\t').collect::<Vec<_>>());
    let heads = rows.next().unwrap_or_default();
    let column = |name: &str| heads.iter().position(|head| *head == name);
    let columns = ["probability", "prediction", "target"].map(column);
    let text = column("text").or_else(|| column("context"));
    let ([Some(probability), Some(prediction), Some(target)], Some(text)) = (columns, text) else { return vec![] };
    let shown = |row: Vec<&str>| {
        let cell = |at: usize| row.get(at).copied().unwrap_or_default();
        let text = console::beginning(cell(text));
        format!("{}, not {} ({}): {text}", cell(prediction), cell(target), cell(probability))
    };
    rows.take(MISTAKES).map(shown).collect()
}

/// The commands for prediction, serving and evaluation, and the report's path.
fn next(trained: &Trained) -> [(&'static str, String); 4] {
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
        ("serve", format!("kiln serve {model}")),
        ("evaluate", format!("kiln eval --data {data} --model {model}")),
        ("report", trained.folder.join("report.html").display().to_string()),
    ]
}

/// A path, quoted for a shell.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |char: char| char.is_alphanumeric() || "/._-+=:@,".contains(char);
    if path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

/// Prints a row for each split: its number of examples, and its scores.
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
    fn mistakes_are_the_first_rows_of_the_table() {
        let table =
            "row\tprobability\tprediction\ttarget\ttext\n7\t0.99\tpositive\tnegative\t".to_owned() + &"长".repeat(61);
        let expected = format!("positive, not negative (0.99): {}…", "长".repeat(60));
        assert_eq!(mistakes(&table), [expected]);
        assert_eq!(mistakes(&format!("{table}{}", "\n8\t0.5\ta\tb\tc".repeat(9))).len(), 4);
        assert!(mistakes("id\tf1\tquestion\n1\t0.5\twhat").is_empty() && mistakes("").is_empty());
    }

    #[test]
    fn paths_are_quoted_for_a_shell() {
        assert_eq!(quoted(Path::new("runs/a-1/model")), "runs/a-1/model");
        assert_eq!(quoted(Path::new("my runs/it's")), "'my runs/it'\\''s'");
    }
}
