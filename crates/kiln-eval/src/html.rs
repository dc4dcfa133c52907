use std::fmt::Write;

use crate::{Report, Scores, SplitReport};

/// A report as one page without scripts or outside resources.
pub fn to_html(report: &Report) -> String {
    let mut page = String::from(HEAD);
    put(&mut page, format_args!("<h1>{} on {}</h1>\n", escape(report.task.name()), escape(&report.model)));
    if let Some(train) = &report.train {
        put(
            &mut page,
            format_args!(
                "<p>{} epochs, {} steps, {:.1} s on {}; best epoch {}; {:.1} examples a second.</p>\n",
                train.epochs,
                train.steps,
                train.seconds,
                escape(&report.backend),
                train.best_epoch,
                train.examples_per_second
            ),
        );
    }
    for (name, split) in &report.splits {
        put(&mut page, format_args!("<h2>{name}</h2>\n"));
        split_section(&mut page, split);
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn split_section(page: &mut String, split: &SplitReport) {
    put(page, format_args!("<p>{} examples", split.examples));
    for (name, score) in split.named() {
        put(page, format_args!(", {} {score:.4}", name.replace('_', " ")));
    }
    let mut matrix: &[Vec<u64>] = &[];
    if let Scores::Labels(scores) = &split.scores {
        let [low, high] = scores.accuracy_interval;
        put(page, format_args!("; accuracy within {low:.4} to {high:.4} (95 %), "));
        put(page, format_args!("calibration error {:.4}", scores.calibration_error));
        matrix = scores.confusion_matrix.counts();
    }
    page.push_str("</p>\n");
    if split.labels().is_empty() {
        return;
    }
    page.push_str("<table><tr><th>label</th><th>precision</th><th>recall</th><th>F1</th><th>support</th>");
    for (label, _) in split.labels().iter().zip(matrix) {
        put(page, format_args!("<th>→ {}</th>", escape(&label.label)));
    }
    page.push_str("</tr>\n");
    for (at, label) in split.labels().iter().enumerate() {
        put(
            page,
            format_args!(
                "<tr><td>{}</td><td>{:.4}</td><td>{:.4}</td><td>{:.4}</td><td>{}</td>",
                escape(&label.label),
                label.precision,
                label.recall,
                label.f1,
                label.support
            ),
        );
        for count in matrix.get(at).into_iter().flatten() {
            put(page, format_args!("<td>{count}</td>"));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
}

const HEAD: &str = "<!doctype html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<title>Kiln report</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; }
th, td { padding: 0.25rem 0.75rem; border-bottom: 1px solid #ccc; text-align: right; }
th:first-child, td:first-child { text-align: left; }
</style>
</head>
<body>
";

fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a string takes any text");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kiln_schema::{LabelSet, Split, Task};

    use super::*;
    use crate::evaluate;

    #[test]
    fn names_cannot_break_the_page() {
        let labels = LabelSet::new(["<b>&", "ok"]).expect("two names");
        let report = Report {
            task: Task::SequenceClassification,
            model: "dir:\"x\"".to_owned(),
            backend: "flex".to_owned(),
            splits: BTreeMap::from([(Split::Test, evaluate(&[1.0, 0.0], &[0], &labels))]),
            train: None,
        };
        let page = to_html(&report);
        assert!(
            page.contains("&lt;b&gt;&amp;") && page.contains("dir:&quot;x&quot;") && !page.contains("<b>"),
            "{page}"
        );
        assert!(page.contains("<h2>test</h2>") && page.ends_with("</html>\n"));
    }
}
