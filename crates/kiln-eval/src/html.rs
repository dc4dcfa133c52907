use std::collections::BTreeMap;
use std::fmt::Write;

use crate::by_length::length_table;
use crate::calibration_page::calibration_section;
use crate::charts::{Line, escape, lines, reliability};
use crate::errors_section::{ErrorTable, errors_section};
use crate::{
    Confusions, LabelConfusion, LabelReport, LabelSetScores, RanksReport, Report, Scores, SplitReport, ThresholdScores,
    TrainReport,
};

/// The content of a report's HTML page.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// The scores.
    pub report: &'a Report,
    /// The learning curves; empty in an evaluation.
    pub epochs: &'a [EpochScores],
    /// The model's mistakes, as tab-separated values with a header.
    pub errors: &'a str,
    /// The findings of the data audit, one per line; empty if there was no audit.
    pub audit: &'a str,
    /// All settings of the training as TOML; empty in an evaluation.
    pub settings: &'a str,
    /// A line about the machine that the training ran on; empty if it is not known.
    pub machine: &'a str,
}

/// The scores of one validation during a training.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochScores {
    /// Number of epochs until the validation; a fraction if the model was validated within an epoch.
    pub epoch: f64,
    /// Mean training loss since the previous validation.
    pub train_loss: f64,
    /// The learning rate of the last update.
    pub learning_rate: f64,
    /// Mean gradient norm of the updates since the previous validation.
    pub gradient_norm: f64,
    /// The scores of the validation by name, including the loss.
    pub validation: BTreeMap<String, f64>,
}

impl Page<'_> {
    /// Renders one page without scripts or external resources, for light and dark screens and for print.
    pub fn to_html(&self) -> String {
        let report = self.report;
        let mut page = String::new();
        let style = include_str!("page.css");
        page.push_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
        page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
        put(&mut page, format_args!("<title>Kiln report</title>\n<style>\n{style}</style>\n</head>\n<body>\n"));
        put(&mut page, format_args!("<h1>{} on {}</h1>\n", escape(report.task.name()), escape(&report.model)));
        if let Some(train) = &report.train {
            cost(&mut page, train, &report.backend);
        }
        let errors = ErrorTable::new(self.errors);
        let last = report.splits.keys().max();
        // The test split comes before validation, on which the checkpoint was selected.
        for (name, split) in report.splits.iter().rev() {
            put(&mut page, format_args!("<h2>{name}</h2>\n"));
            split_section(&mut page, split, errors.as_ref().filter(|_| Some(name) == last));
        }
        curves(&mut page, self.epochs);
        if let (Some(errors), Some(split)) = (&errors, last) {
            errors_section(&mut page, errors, *split);
        }
        if !self.audit.is_empty() {
            put(&mut page, format_args!("<h2>data</h2>\n<pre>{}</pre>\n", escape(self.audit.trim_end())));
        }
        if !self.settings.is_empty() {
            put(
                &mut page,
                format_args!(
                    "<h2>settings</h2>\n<p>This recipe repeats the run: <code>kiln train --recipe run.toml --out FOLDER</code></p>\n<p class=\"soft\">{}</p>\n",
                    escape(self.machine)
                ),
            );
            put(
                &mut page,
                format_args!("<details><summary>run.toml</summary><pre>{}</pre></details>\n", escape(self.settings)),
            );
        }
        page.push_str("</body>\n</html>\n");
        page
    }
}

/// Writes charts of losses, scores, learning rate and gradient norm over the epochs; nothing before the first validation.
pub(crate) fn curves(page: &mut String, epochs: &[EpochScores]) {
    if epochs.is_empty() {
        return;
    }
    let line = |name: &str, value: &dyn Fn(&EpochScores) -> Option<f64>| Line {
        name: name.to_owned(),
        points: epochs.iter().filter_map(|epoch| Some((epoch.epoch, value(epoch)?))).collect(),
    };
    let validation = |name: &str| line(&name.replace('_', " "), &|epoch| epoch.validation.get(name).copied());
    let loss = [
        line("training", &|epoch| Some(epoch.train_loss)),
        Line { name: "validation".to_owned(), ..validation("loss") },
    ];
    let names = epochs[0].validation.keys().filter(|name| *name != "loss" && *name != "perplexity");
    let scores: Vec<Line> = names.take(4).map(|name| validation(name)).collect();
    let rate = [line("learning rate", &|epoch| Some(epoch.learning_rate))];
    let norm = [line("mean of the updates, before clipping", &|epoch| Some(epoch.gradient_norm))];
    let charts: [(&str, &[Line]); 4] =
        [("Loss", &loss), ("Validation scores", &scores), ("Learning rate", &rate), ("Gradient norm", &norm)];
    page.push_str("<h2>training</h2>\n<div class=\"charts\">\n");
    page.extend(charts.into_iter().filter_map(|(title, values)| lines(title, values)));
    page.push_str("</div>\n");
}

fn cost(page: &mut String, train: &TrainReport, backend: &str) {
    let ranks = train.ranks.as_ref();
    let ranks = ranks.map_or_else(String::new, |RanksReport { ranks, reduce, .. }| {
        format!(" by {ranks} processes (reduce = {reduce})")
    });
    put(
        page,
        format_args!(
            "<p class=\"soft\">{} epochs, {} updates, {:.1} s on {}{ranks}; epoch {} is the best; {:.1} examples a second; peak memory {} MB.</p>\n",
            train.epochs,
            train.steps,
            train.seconds,
            escape(backend),
            train.best_epoch,
            train.examples_per_second,
            train.peak_rss_bytes / 1_000_000,
        ),
    );
}

/// `errors` is given if the mistakes are listed for this split.
fn split_section(page: &mut String, split: &SplitReport, errors: Option<&ErrorTable<'_>>) {
    put(page, format_args!("<ul class=\"cards\">\n<li><strong>{}</strong>examples</li>\n", split.examples));
    let named = split.named().into_iter().map(|(name, score)| (name.replace('_', " "), score));
    for (name, score) in named.chain(other_scores(split)) {
        put(page, format_args!("<li><strong>{score:.4}</strong>{name}</li>\n"));
    }
    page.push_str("</ul>\n");
    match &split.scores {
        Scores::Labels(scores) => {
            let [low, high] = scores.accuracy_interval;
            put(page, format_args!("<p>The accuracy is within {low:.4} to {high:.4} with a confidence of 95 %.</p>\n"));
        }
        Scores::Tags(scores) => put(page, format_args!("<p>Tag scheme: {}.</p>\n", scores.tag_scheme)),
        Scores::Answers(scores) => {
            put(page, format_args!("<p>Answers are compared as {:?}.</p>\n", scores.answer_language))
        }
        Scores::LabelSets(LabelSetScores { at_half: Some(at_half), .. }) => thresholds(page, split.labels(), at_half),
        Scores::LabelSets(_) | Scores::Numbers(_) | Scores::Masked(_) => {}
    }
    let (confusions, bins) = match &split.scores {
        Scores::Labels(scores) => (Some(&scores.confusions), scores.reliability.as_slice()),
        _ => (None, [].as_slice()),
    };
    label_table(page, split.labels(), confusions, errors);
    if let Some(confusions) = confusions.filter(|_| split.labels().len() > MATRIX_COLUMNS) {
        confusion_table(page, &largest(confusions, split.labels()));
    }
    if let Some(by_length) = &split.by_length {
        length_table(page, by_length);
    }
    match &split.calibration {
        Some(calibration) => calibration_section(page, calibration),
        None => {
            if let Some(chart) = reliability("Calibration", bins) {
                put(page, format_args!("<div class=\"charts\">\n{chart}</div>\n"));
            }
        }
    }
}

/// Writes the threshold of each label, and the scores with a threshold of 0.5 for all labels.
fn thresholds(page: &mut String, labels: &[LabelReport], at_half: &ThresholdScores) {
    let ThresholdScores { thresholds, accuracy, micro_f1, macro_f1 } = at_half;
    page.push_str("<p>Each label has its own threshold, the one with the highest F1 on the validation split. ");
    put(page, format_args!("With 0.5 for all labels, the accuracy would be {accuracy:.4}, "));
    put(page, format_args!("macro F1 {macro_f1:.4} and micro F1 {micro_f1:.4}.</p>\n"));
    page.push_str("<details><summary>thresholds</summary><table><tr><th>label</th><th>threshold</th></tr>\n");
    for (label, threshold) in labels.iter().zip(thresholds) {
        put(page, format_args!("<tr><td>{}</td><td>{threshold:.4}</td></tr>\n", escape(&label.label)));
    }
    page.push_str("</table></details>\n");
}

/// Scores that are not in the training log.
fn other_scores(split: &SplitReport) -> Vec<(String, f64)> {
    let named = |name: &str, score: f64| (name.to_owned(), score);
    match &split.scores {
        Scores::Labels(scores) => {
            let roc_auc = scores.roc_auc.map(|area| named("ROC-AUC", area));
            let others = [named("MCC", scores.mcc), named("calibration error", scores.calibration_error)];
            roc_auc.into_iter().chain(others).collect()
        }
        Scores::LabelSets(LabelSetScores { roc_auc: Some(roc_auc), .. }) => vec![named("ROC-AUC", *roc_auc)],
        _ => Vec::new(),
    }
}

/// The largest number of labels for which the table has a column per predicted label.
const MATRIX_COLUMNS: usize = 30;

/// The largest number of labels that the table shows.
const LABEL_ROWS: usize = 200;

/// The largest number of confusions that are listed.
const CONFUSION_ROWS: usize = 50;

/// Writes a table with one row per label. If there are very many labels, only those with the lowest F1 are shown.
fn label_table(
    page: &mut String,
    labels: &[LabelReport],
    confusions: Option<&Confusions>,
    errors: Option<&ErrorTable<'_>>,
) {
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
    page.push_str(
        "<div class=\"scroll\"><table><tr><th>label</th><th>precision</th><th>recall</th><th>F1</th><th>support</th>",
    );
    for (label, _) in labels.iter().zip(matrix) {
        put(page, format_args!("<th>→ {}</th>", escape(&label.label)));
    }
    page.push_str("</tr>\n");
    for at in order {
        let LabelReport { label, precision, recall, f1, support } = &labels[at];
        let label = escape(label);
        put(page, format_args!("<tr><td>{label}</td><td>{precision:.4}</td><td>{recall:.4}</td>"));
        put(page, format_args!("<td class=\"bar\" style=\"--share:{f1:.2}\">{f1:.4}</td><td>{support}</td>"));
        for (count, predicted) in matrix.get(at).into_iter().flatten().zip(labels) {
            let share = *count as f64 / (*support).max(1) as f64;
            put(page, format_args!("<td class=\"heat\" style=\"--share:{share:.2}\">"));
            match errors.and_then(|errors| errors.first([&labels[at].label, &predicted.label])) {
                Some(row) => put(page, format_args!("<a href=\"#error-{}\">{count}</a></td>", row + 1)),
                None => put(page, format_args!("{count}</td>")),
            }
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
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

pub(crate) fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a string takes any text");
}

#[cfg(test)]
mod tests {
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
        let errors = "row\tprediction\ttarget\ttext\ttext_pair\n1\tok\t<b>&\t<i>x\t\n";
        let epoch = |epoch, loss| EpochScores {
            epoch,
            train_loss: loss,
            learning_rate: 1e-3,
            gradient_norm: 2.0,
            validation: BTreeMap::from([("loss".to_owned(), loss), ("accuracy".to_owned(), 0.5)]),
        };
        let epochs = [epoch(1.0, 0.7), epoch(2.0, 0.6)];
        let (audit, settings, machine) = ("train 3 rows <", "seed = 42 # <&", "2 threads of <x>");
        let page = Page { report: &report, epochs: &epochs, errors, audit, settings, machine }.to_html();
        assert!(page.contains("<pre>train 3 rows &lt;</pre>") && page.contains("2 threads of &lt;x&gt;"), "{page}");
        assert!(
            page.contains("<td>&lt;i&gt;x</td>")
                && !page.contains("text pair")
                && page.contains("seed = 42 # &lt;&amp;")
        );
        assert_eq!(page.matches("<svg").count(), 5, "loss, scores, rate, gradient norm and calibration");
        // The cell in the row of the true label and the column of the predicted label links to the first such error.
        assert_eq!(page.matches("<a href=\"#error-1\">0</a>").count(), 1, "{page}");
        assert!(page.contains("<tr id=\"error-1\">"));
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
        let report = Report {
            task: Task::SequenceClassification,
            model: "dir:x".to_owned(),
            backend: "flex".to_owned(),
            splits: BTreeMap::from([(Split::Test, split)]),
            train: None,
        };
        Page { report: &report, epochs: &[], errors: "", audit: "", settings: "", machine: "" }.to_html()
    }

    /// Regression test: the page of 4,000 labels was 157 MB.
    #[test]
    fn a_page_of_many_labels_is_small() {
        for num_labels in [40, 300, 4_000] {
            let page = page(num_labels);
            assert!(page.contains("<td>label 1</td><td>label 7</td><td>1</td>"), "{num_labels} labels");
            assert!(page.len() < 45_000, "{num_labels} labels: {} bytes", page.len());
        }
        assert!(page(10).contains("<th>→ label 7</th>") && !page(10).contains("predicted as"));
        assert!(page(300).contains("2 of 300 labels, those with the lowest F1"));
    }
}
