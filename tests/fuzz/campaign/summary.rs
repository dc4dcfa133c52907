//! The summary of a campaign's findings.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::case::{Outcome, Report};

/// Counts by reader, and the findings in groups of similar ones.
#[derive(Default)]
pub struct Summary {
    readers: BTreeMap<String, Counts>,
    groups: BTreeMap<String, Vec<Report>>,
    /// Number of cases that were slow once, but not when they ran again.
    pub slow: usize,
}

#[derive(Default)]
struct Counts {
    cases: usize,
    accepted: usize,
    refused: usize,
    findings: usize,
    peak: usize,
}

impl Summary {
    pub fn add(&mut self, report: Report) {
        let counts = self.readers.entry(report.reader.clone()).or_default();
        counts.cases += 1;
        counts.peak = counts.peak.max(report.peak);
        match &report.outcome {
            Outcome::Accepted => counts.accepted += 1,
            Outcome::Refused(_) => counts.refused += 1,
            Outcome::Finding(kind, particulars) => {
                counts.findings += 1;
                self.groups.entry(likeness(&report.reader, kind, particulars)).or_default().push(report);
            }
        }
    }

    pub fn is_clean(&self) -> bool {
        self.groups.is_empty()
    }

    pub fn print(&self, seed: u64, took: Duration) {
        println!(
            "{:<12} {:>7} {:>9} {:>8} {:>9} {:>9}",
            "reader", "cases", "accepted", "refused", "findings", "peak MiB"
        );
        let mut all = Counts::default();
        for (reader, counts) in &self.readers {
            let Counts { cases, accepted, refused, findings, peak } = counts;
            println!("{reader:<12} {cases:>7} {accepted:>9} {refused:>8} {findings:>9} {:>9}", peak >> 20);
            all.cases += cases;
            all.findings += findings;
        }
        for reports in self.groups.values() {
            println!("\n{} × {}", reports.len(), shown(&reports[0]));
            println!("    cargo xtask fuzz --seed {seed} --case {}", reports[0].number);
        }
        let slow = if self.slow > 0 { format!(", {} slow once", self.slow) } else { String::new() };
        let Counts { cases, findings, .. } = all;
        println!(
            "\n{cases} cases with seed {seed} in {:.0} s: {findings} findings in {} groups{slow}",
            took.as_secs_f64(),
            self.groups.len()
        );
    }
}

/// Formats a report in one line.
pub fn shown(report: &Report) -> String {
    let Report { number, reader, seed, what, outcome, .. } = report;
    let outcome = match outcome {
        Outcome::Accepted => "accepted".to_owned(),
        Outcome::Refused(message) => format!("refused: {message}"),
        Outcome::Finding(kind, particulars) => format!("{kind}: {particulars}"),
    };
    format!("case {number} ({reader}, {seed}; {what}): {outcome}")
}

/// A key for grouping: findings whose messages differ only in numbers and symbols have the same key.
fn likeness(reader: &str, kind: &str, particulars: &str) -> String {
    let words: String = particulars.chars().filter(|char| char.is_ascii_alphabetic() || ":.".contains(*char)).collect();
    // A panic is identified by its place in the source.
    let place = if kind == "panic" { particulars.split(": ").next().unwrap_or_default().to_owned() } else { words };
    format!("{reader} {kind} {}", place.chars().take(80).collect::<String>())
}
