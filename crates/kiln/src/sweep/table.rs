//! Writes the results of a sweep as JSON, as a table (TSV) and as an HTML page. Only the JSON has times.

use std::fmt::Write;

use anyhow::Context;
use kiln_eval::SweepPage;

use super::{Candidate, Swept};

pub(super) fn write(swept: &Swept) -> anyhow::Result<()> {
    let rows = rows(swept);
    let page = SweepPage { metric: swept.metric, header: &HEADER, rows: &rows };
    let mut table = format!("{}\n", HEADER.join("\t"));
    for row in &rows {
        writeln!(table, "{}", row.join("\t")).expect("a string takes any text");
    }
    let json = serde_json::to_vec_pretty(swept)?;
    for (name, bytes) in
        [("sweep.json", json.as_slice()), ("sweep.tsv", table.as_bytes()), ("sweep.html", page.to_html().as_bytes())]
    {
        let path = swept.path.join(name);
        kiln_files::write(&path, bytes).with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    Ok(())
}

/// `low` and `high` are the confidence interval of the mean. `best_violation` is how far the best candidate is from being
/// better at every quantile of the runs.
const HEADER: [&str; 9] =
    ["rank", "settings", "epochs", "runs", "score", "low", "high", "best_violation", "test_score"];

fn rows(swept: &Swept) -> Vec<Vec<String>> {
    let number = |score: Option<f64>| score.map(|score| format!("{score:.4}")).unwrap_or_default();
    let row = |(rank, candidate): (usize, &Candidate)| {
        vec![
            rank.to_string(),
            candidate.settings.join(", "),
            candidate.epochs.to_string(),
            candidate.runs.len().to_string(),
            number(candidate.score),
            number(candidate.interval.map(|[low, _]| low)),
            number(candidate.interval.map(|[_, high]| high)),
            number(candidate.best_violation),
            number(candidate.test_score),
        ]
    };
    (1..).zip(&swept.candidates).map(row).collect()
}
