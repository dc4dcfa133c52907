//! The report of the measurements as lines, a table and a chart.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use plotters::prelude::*;

use super::Measured;

/// The peer's value ÷ Kiln's: how many times faster or smaller Kiln is.
fn ratio(measured: &Measured) -> Option<f64> {
    Some(median(&measured.theirs)? / median(&measured.ours)?)
}

pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

pub fn line(measured: &Measured) -> String {
    let [ours, theirs] = sides(measured);
    let ratio = ratio(measured).map(|ratio| format!("  ratio {ratio:.2}")).unwrap_or_default();
    format!("{:<56} ours {ours}  {} {theirs}{ratio}", measured.name, measured.peer)
}

/// Median and spread of each side.
fn sides(measured: &Measured) -> [String; 2] {
    [&measured.ours, &measured.theirs].map(|samples| {
        let Some(median) = median(samples) else { return "–".to_owned() };
        let (low, high) = samples.iter().fold((f64::MAX, 0f64), |(low, high), s| (low.min(*s), high.max(*s)));
        match measured.unit {
            "s" if median < 1.0 => format!("{:.1} ms ({:.1}–{:.1})", median * 1e3, low * 1e3, high * 1e3),
            "s" => format!("{median:.2} s ({low:.2}–{high:.2})"),
            unit => format!("{median:.0} {unit}"),
        }
    })
}

/// Date and machine of the measurements, and their table.
pub fn figures(all: &[Measured], threads: usize) -> String {
    let mut text = format!("{}, {threads} threads a side. ", machine());
    text.push_str("Medians, with the lowest and the highest round; the ratio is theirs ÷ ours.\n\n");
    text.push_str("| work | Kiln | peer | theirs | ratio |\n|---|---|---|---|---|\n");
    for measured in all {
        let [ours, theirs] = sides(measured);
        let ratio = ratio(measured).map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
        let line = format!("| {} | {ours} | {} | {theirs} | {ratio} |\n", measured.name, measured.peer);
        text.push_str(&line);
    }
    text
}

/// Writes `report.md` and `ratios.svg`, and returns the path of `report.md`.
pub fn write(folder: &Path, all: &[Measured], products: &str, threads: usize) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    let mut text = format!("# Kiln against its peers\n\n{}", figures(all, threads));
    if all.iter().any(|measured| ratio(measured).is_some()) {
        text.push_str("\n![ratios](ratios.svg)\n");
        draw(&folder.join("ratios.svg"), all)?;
    }
    writeln!(text, "\n## Our products\n\n{products}")?;
    let path = folder.join("report.md");
    std::fs::write(&path, text).with_context(|| format!("{}: cannot be written", path.display()))?;
    Ok(path)
}

/// Date and processor, as far as the system reports them.
pub fn machine() -> String {
    let date = Command::new("date").arg("+%Y-%m-%d").output().ok();
    let date = date.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    format!("{}, {}", date.trim(), processor.map_or("a processor without a name", |(_, name)| name))
}

/// Draws a bar for each ratio, and a line at 1, where both sides are equal.
fn draw(path: &Path, all: &[Measured]) -> Result<()> {
    let bars: Vec<(String, f64)> = all
        .iter()
        .filter_map(|measured| Some((format!("{} · {}", measured.name, measured.peer), ratio(measured)?)))
        .collect();
    let most = bars.iter().fold(1.0, |most, (_, ratio)| ratio.max(most)) * 1.15;
    let (row, left, width) = (34, 480, 980);
    let area = SVGBackend::new(path, (width, row * (bars.len() as u32 + 1))).into_drawing_area();
    area.fill(&WHITE)?;
    let x = |ratio: f64| left + (f64::from(width as i32 - left) * ratio / most) as i32;
    let font = ("sans-serif", 14);
    for (at, (name, ratio)) in bars.iter().enumerate() {
        let top = (at as u32 * row) as i32 + 12;
        let bar = [(left, top), (x(*ratio), top + 20)];
        area.draw(&Rectangle::new(bar, RGBColor(196, 84, 42).filled()))?;
        area.draw(&Text::new(name.clone(), (8, top + 3), font))?;
        area.draw(&Text::new(format!("{ratio:.2}"), (x(*ratio) + 6, top + 3), font))?;
    }
    let bottom = (bars.len() as u32 * row) as i32 + 12;
    area.draw(&PathElement::new([(x(1.0), 4), (x(1.0), bottom)], BLACK))?;
    area.draw(&Text::new("as fast as ours".to_owned(), (x(1.0) + 4, bottom), font))?;
    area.present().context("the picture cannot be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        let measured = Measured { name: "x", peer: "PyTorch", unit: "s", ours: vec![0.1, 0.2, 0.3], theirs: vec![0.5] };
        assert!(line(&measured).ends_with("ratio 2.50"), "{}", line(&measured));
    }

    #[test]
    fn a_report_has_a_row_a_measure_and_a_picture() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("kiln-bench-{}", std::process::id()));
        let all = [
            Measured { name: "alone", peer: "PyTorch", unit: "s", ours: vec![2.0], theirs: vec![] },
            Measured { name: "both", peer: "onnxruntime", unit: "MB", ours: vec![100.0], theirs: vec![150.0] },
        ];
        let text = std::fs::read_to_string(write(&folder, &all, "| product |", 2)?)?;
        assert!(text.contains("| alone | 2.00 s (2.00–2.00) | PyTorch | – | – |"), "{text}");
        assert!(text.contains("| both | 100 MB | onnxruntime | 150 MB | 1.50 |"), "{text}");
        assert!(std::fs::read_to_string(folder.join("ratios.svg"))?.contains("both"));
        Ok(std::fs::remove_dir_all(folder)?)
    }
}
