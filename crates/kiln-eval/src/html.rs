use std::fmt::Write;

use crate::{Confusions, LabelConfusion, LabelReport, LabelSetScores, Report, Scores, SplitReport};

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
    match &split.scores {
        Scores::Labels(scores) => {
            let [low, high] = scores.accuracy_interval;
            put(page, format_args!("; accuracy within {low:.4} to {high:.4} (95 %)"));
            if let Some(roc_auc) = scores.roc_auc {
                put(page, format_args!(", ROC-AUC {roc_auc:.4}"));
            }
            put(page, format_args!(", MCC {:.4}, calibration error {:.4}", scores.mcc, scores.calibration_error));
        }
        Scores::LabelSets(LabelSetScores { roc_auc: Some(roc_auc), .. }) => {
            put(page, format_args!(", ROC-AUC {roc_auc:.4}"));
        }
        Scores::Tags(scores) => put(page, format_args!("; tag scheme {}", scores.tag_scheme)),
        Scores::Answers(scores) => put(page, format_args!("; answers compared as {:?}", scores.answer_language)),
        Scores::LabelSets(_) | Scores::Numbers(_) | Scores::Masked(_) => {}
    }
    page.push_str("</p>\n");
    let confusions = match &split.scores {
        Scores::Labels(scores) => Some(&scores.confusions),
        _ => None,
    };
    label_table(page, split.labels(), confusions);
    if let Some(confusions) = confusions.filter(|_| split.labels().len() > MATRIX_COLUMNS) {
        confusion_table(page, &largest(confusions, split.labels()));
    }
}

/// The most labels whose table has a column for each prediction.
const MATRIX_COLUMNS: usize = 30;

/// The most labels that the table shows.
const LABEL_ROWS: usize = 200;

/// The most confusions that are listed.
const CONFUSION_ROWS: usize = 50;

/// A row a label; of very many labels, those with the lowest F1.
fn label_table(page: &mut String, labels: &[LabelReport], confusions: Option<&Confusions>) {
    if labels.is_empty() {
        return;
    }
    let matrix: &[Vec<u64>] = match confusions {
        Some(Confusions::Matrix { confusion_matrix }) if labels.len() <= MATRIX_COLUMNS => confusion_matrix,
        _ => &[],
    };
    let mut order: Vec<usize> = (0..labels.len()).collect();
    if labels.len() > LABEL_ROWS {
        order.retain(|&at| labels[at].support > 0);
        order.sort_by(|&a, &b| labels[a].f1.total_cmp(&labels[b].f1).then(labels[b].support.cmp(&labels[a].support)));
        order.truncate(LABEL_ROWS);
        let shown = order.len();
        put(page, format_args!("<p>{shown} of {} labels, those with the lowest F1:</p>\n", labels.len()));
    }
    page.push_str("<table><tr><th>label</th><th>precision</th><th>recall</th><th>F1</th><th>support</th>");
    for (label, _) in labels.iter().zip(matrix) {
        put(page, format_args!("<th>→ {}</th>", escape(&label.label)));
    }
    page.push_str("</tr>\n");
    for at in order {
        let LabelReport { label, precision, recall, f1, support } = &labels[at];
        let label = escape(label);
        put(page, format_args!("<tr><td>{label}</td><td>{precision:.4}</td><td>{recall:.4}</td>"));
        put(page, format_args!("<td>{f1:.4}</td><td>{support}</td>"));
        for count in matrix.get(at).into_iter().flatten() {
            put(page, format_args!("<td>{count}</td>"));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
}

fn confusion_table(page: &mut String, confusions: &[LabelConfusion]) {
    if confusions.is_empty() {
        return;
    }
    page.push_str("<table><tr><th>label</th><th>predicted as</th><th>count</th></tr>\n");
    for LabelConfusion { target, prediction, count } in confusions {
        let (target, prediction) = (escape(target), escape(prediction));
        put(page, format_args!("<tr><td>{target}</td><td>{prediction}</td><td>{count}</td></tr>\n"));
    }
    page.push_str("</table>\n");
}

/// The most frequent wrong predictions.
fn largest(confusions: &Confusions, labels: &[LabelReport]) -> Vec<LabelConfusion> {
    let mut largest = match confusions {
        Confusions::Largest { largest_confusions } => largest_confusions.clone(),
        Confusions::Matrix { confusion_matrix } => {
            let rows = confusion_matrix.iter().zip(labels);
            let pairs = rows.flat_map(|(row, target)| row.iter().zip(labels).map(move |cell| (target, cell)));
            let wrong = pairs.filter(|(target, (count, label))| **count > 0 && target.label != label.label);
            let named = |(target, (&count, label)): (&LabelReport, (&u64, &LabelReport))| LabelConfusion {
                target: target.label.clone(),
                prediction: label.label.clone(),
                count,
            };
            wrong.map(named).collect()
        }
    };
    largest.sort_by_key(|confusion| std::cmp::Reverse(confusion.count));
    largest.truncate(CONFUSION_ROWS);
    largest
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
            splits: BTreeMap::from([(
                Split::Test,
                evaluate(&[1.0, 0.0], &[0], &labels).expect("the logits are finite"),
            )]),
            train: None,
        };
        let page = to_html(&report);
        assert!(
            page.contains("&lt;b&gt;&amp;") && page.contains("dir:&quot;x&quot;") && !page.contains("<b>"),
            "{page}"
        );
        assert!(page.contains("<h2>test</h2>") && page.ends_with("</html>\n"));
    }

    fn page(num_labels: usize) -> String {
        let labels = LabelSet::new((0..num_labels).map(|id| format!("label {id}"))).expect("distinct names");
        let mut logits = vec![0.0; 3 * num_labels];
        logits[7] = 1.0;
        let split = evaluate(&logits, &[1, 0, 0], &labels).expect("the logits are finite");
        to_html(&Report {
            task: Task::SequenceClassification,
            model: "dir:x".to_owned(),
            backend: "flex".to_owned(),
            splits: BTreeMap::from([(Split::Test, split)]),
            train: None,
        })
    }

    /// The page of 4,000 labels had 157 MB.
    #[test]
    fn a_page_of_many_labels_is_small() {
        for num_labels in [40, 300, 4_000] {
            let page = page(num_labels);
            assert!(page.contains("<td>label 1</td><td>label 7</td><td>1</td>"), "{num_labels} labels");
            assert!(page.len() < 30_000, "{num_labels} labels: {} bytes", page.len());
        }
        assert!(page(10).contains("<th>→ label 7</th>") && !page(10).contains("predicted as"));
        assert!(page(300).contains("2 of 300 labels, those with the lowest F1"));
    }
}
