use std::fmt;

use crate::wording::{counted, list};

use super::{Audit, Finding, LabelCount, Overlap, SplitAudit};

impl Audit {
    /// A few lines for a log: the sizes, then one line per problem.
    pub fn summary(&self) -> String {
        let sizes: Vec<_> = self.splits.iter().map(|split| format!("{} {}", split.split, rows(split.rows))).collect();
        let labels = self.splits.first().map_or(0, |split| split.labels.len());
        let mut lines = vec![format!("{}; {}", sizes.join(", "), counted("label", labels))];
        lines.extend(self.overlaps.iter().filter_map(overlap_line));
        lines.extend(self.splits.iter().flat_map(split_lines));
        if lines.len() == 1 {
            lines.push("no duplicates, leaks, contradictions or empty texts".to_owned());
        }
        lines.join("\n")
    }
}

fn overlap_line(overlap: &Overlap) -> Option<String> {
    let Overlap { split, with, rows: found, near, relabelled } = overlap;
    if found.count + near == 0 {
        return None;
    }
    let mut line = format!("{split}: {} also in {with}", rows(found.count));
    if *relabelled > 0 {
        line += &format!(", {relabelled} of them under another label");
    }
    if *near > 0 {
        line += &format!("; {near} more that differ only in {LOOSE}");
    }
    Some(line)
}

fn split_lines(audit: &SplitAudit) -> Vec<String> {
    let split = audit.split;
    let mut lines = Vec::new();
    let mut line = |count: usize, what: String| {
        if count > 0 {
            lines.push(format!("{split}: {what}"));
        }
    };
    line(audit.duplicates.count, repeat("row", audit.duplicates.count));
    line(audit.near_duplicates.count, format!("{} apart from {LOOSE}", repeat("text", audit.near_duplicates.count)));
    line(audit.conflicts.count, format!("{} with more than one label", texts(audit.conflicts.count)));
    line(audit.empty.count, format!("{} with an empty text", rows(audit.empty.count)));
    let missing = audit.labels.iter().filter(|label| label.rows == 0);
    let missing: Vec<String> = missing.map(|label| label.label.clone()).collect();
    line(missing.len(), format!("no row of {}: {}", counted("label", missing.len()), list(&missing)));
    if let Some(lengths) = &audit.lengths {
        let share = 100.0 * lengths.longer_share;
        let fate = if lengths.windowed { "go through overlapping windows" } else { "are cut" };
        line(
            lengths.longer,
            format!("{share:.1} % of the rows are longer than {} tokens and {fate}", lengths.max_length),
        );
    }
    lines
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<12}{:>10}{:>10}{:>12}{:>10}{:>11}{:>8}",
            "split", "rows", "distinct", "duplicates", "near", "conflicts", "empty"
        )?;
        for audit in &self.splits {
            writeln!(
                f,
                "{:<12}{:>10}{:>10}{:>12}{:>10}{:>11}{:>8}",
                audit.split,
                audit.rows,
                audit.distinct,
                audit.duplicates.count,
                audit.near_duplicates.count,
                audit.conflicts.count,
                audit.empty.count
            )?;
        }
        if self.splits.iter().any(|audit| audit.lengths.is_some()) {
            writeln!(
                f,
                "\n{:<12}{:>8}{:>12}{:>8}{:>8}{:>8}{:>10}  over max_length",
                "tokens", "min", "mean", "p50", "p95", "p99", "max"
            )?;
        }
        for audit in &self.splits {
            let Some(lengths) = &audit.lengths else { continue };
            writeln!(
                f,
                "{:<12}{:>8}{:>12.1}{:>8}{:>8}{:>8}{:>10}  {} ({:.1} %) over {}",
                audit.split,
                lengths.min,
                lengths.mean,
                lengths.p50,
                lengths.p95,
                lengths.p99,
                lengths.max,
                lengths.longer,
                100.0 * lengths.longer_share,
                lengths.max_length
            )?;
        }
        writeln!(f, "\nlabels")?;
        for audit in &self.splits {
            writeln!(f, "{:<12}{}", audit.split, balance(&audit.labels))?;
        }
        writeln!(f, "\noverlaps")?;
        for overlap in &self.overlaps {
            let none = || format!("{}: nothing in {}", overlap.split, overlap.with);
            writeln!(f, "{}", overlap_line(overlap).unwrap_or_else(none))?;
            write_examples(f, "", &overlap.rows)?;
        }
        for audit in &self.splits {
            write_examples(f, &format!("{}: repeated", audit.split), &audit.duplicates)?;
            write_examples(f, &format!("{}: nearly repeated", audit.split), &audit.near_duplicates)?;
            write_examples(f, &format!("{}: more than one label", audit.split), &audit.conflicts)?;
        }
        Ok(())
    }
}

/// The differences that near duplicates may have.
const LOOSE: &str = "case, width, spaces and punctuation";

/// The maximum number of labels per line.
const SHOWN: usize = 12;

/// The most frequent labels first. If some are left out, the rarest label ends the line.
fn balance(labels: &[LabelCount]) -> String {
    let mut sorted: Vec<_> = labels.iter().collect();
    sorted.sort_by_key(|label| std::cmp::Reverse(label.rows));
    let show = |label: &LabelCount| format!("{} {} ({:.1} %)", label.label, label.rows, 100.0 * label.share);
    let shown: Vec<_> = sorted.iter().take(SHOWN).map(|label| show(label)).collect();
    match sorted[shown.len()..] {
        [] => shown.join(", "),
        [.., rarest] => format!("{} … {} labels, the rarest {}", shown.join(", "), labels.len(), show(rarest)),
    }
}

fn write_examples(f: &mut fmt::Formatter<'_>, title: &str, finding: &Finding) -> fmt::Result {
    if finding.count == 0 {
        return Ok(());
    }
    if !title.is_empty() {
        writeln!(f, "\n{title}")?;
    }
    for example in &finding.examples {
        writeln!(f, "    {example}")?;
    }
    match finding.count - finding.examples.len() {
        0 => Ok(()),
        more => writeln!(f, "    … {more} more"),
    }
}

fn rows(count: usize) -> String {
    counted("row", count)
}

fn texts(count: usize) -> String {
    counted("text", count)
}

fn repeat(what: &str, count: usize) -> String {
    format!("{} {} an earlier one", counted(what, count), if count == 1 { "repeats" } else { "repeat" })
}
