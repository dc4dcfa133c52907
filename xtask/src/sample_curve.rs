//! Measures the value of the sample's checkpoint, by fine-tuning it and random weights on few and on many reviews.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use plotters::prelude::*;
use serde_json::Value;

use crate::seeds::{Seeds, mean, range, shown};
use crate::workspace::{self, cargo, run};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder with `train.tsv` and `dev.tsv` in `data/chnsenticorp`
    #[arg(long)]
    assets: PathBuf,
}

/// Numbers of labelled reviews, each with its number of epochs.
const SIZES: [(usize, usize); 3] = [(200, 10), (1_000, 10), (9_600, 3)];
const SEEDS: [u64; 3] = [1, 2, 3];
const STARTS: [&str; 2] = ["pretrained", "random"];
/// Learning rates. Each start is trained with all of them, because their best rates may differ.
const RATES: [&str; 3] = ["1e-4", "2e-4", "4e-4"];

const RECIPE: &str = r#"task = "sequence-classification"
[model]
source = "sample"
encoder = "full"
pooling = "mean"
[data]
train = "train.tsv"
validation = "dev.tsv"
text = 0
label = 1
header = false
[train]
batch_size = 16
precision = "bf16"
"#;

/// Trains on ChnSentiCorp and on the sample, prints a table, and draws the curve for the sample's card.
pub fn measure(args: &Args) -> Result<()> {
    let target = workspace::metadata()?.target_directory.into_std_path_buf();
    let folder = target.join("sample-curve");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("recipe.toml"), RECIPE)?;
    let data = args.assets.join("data/chnsenticorp").canonicalize().context("there is no ChnSentiCorp")?;
    let train = std::fs::read_to_string(data.join("train.tsv"))?;
    let rows: Vec<&str> = train.lines().collect();
    run(&mut cargo(["build", "--release", "--workspace", "--exclude=xtask", "--bins"]))?;
    let kiln = target.join("release/kiln");
    let dev = format!("data.validation={}", data.join("dev.tsv").display());

    let mut table = String::from("| reviews trained on | rate | pre-trained | random weights |\n|---|---|---|---|\n");
    let mut curves = [Vec::new(), Vec::new()];
    for (size, epochs) in SIZES {
        let taken: String = (0..size).map(|at| format!("{}\n", rows[at * rows.len() / size])).collect();
        std::fs::write(folder.join("train.tsv"), taken)?;
        let mut best = [Seeds::new(), Seeds::new()];
        for rate in RATES {
            let settings = [dev.clone(), format!("train.epochs={epochs}"), format!("train.learning_rate={rate}")];
            write!(table, "| {size}, {epochs} epochs | {rate} |")?;
            for (start, best) in STARTS.iter().zip(&mut best) {
                let runs = trained(&kiln, &folder.join("recipe.toml"), start, &settings, &folder)?;
                // The score of the last epoch, so that no epoch is selected by its score.
                let accuracies = runs.iter().map(|run| last_validation(run)).collect::<Result<Seeds>>()?;
                write!(table, " {} |", shown(&accuracies))?;
                if best.is_empty() || mean(&accuracies) > mean(best) {
                    *best = accuracies;
                }
            }
            table.push('\n');
            eprint!("{table}");
        }
        for (curve, best) in curves.iter_mut().zip(best) {
            curve.push((size as f64, best));
        }
    }
    let recipe = workspace::root().join("datasets/sample/recipe.toml");
    let sample = STARTS.map(|start| -> Result<Seeds> {
        let runs = trained(&kiln, &recipe, start, &[], &folder)?;
        runs.iter().map(|run| test(run)).collect()
    });
    let [pretrained, random] = sample;
    writeln!(
        table,
        "| the sample's 1,463, tested on its 300 | its recipe's | {} | {} |",
        shown(&pretrained?),
        shown(&random?)
    )?;
    eprint!("{table}");
    draw(&workspace::root().join("datasets/sample/learning-curve.svg"), &curves)
}

/// Trains with each seed, and returns the folders of the runs.
fn trained(kiln: &Path, recipe: &Path, start: &str, settings: &[String], folder: &Path) -> Result<Vec<PathBuf>> {
    let one = |seed: u64| {
        let out = folder.join("run");
        let _ = std::fs::remove_dir_all(&out);
        let mut train = Command::new(kiln);
        train.arg("train").arg("--recipe").arg(recipe).arg("--out").arg(&out);
        for setting in [format!("model.initialize={start}"), format!("train.seed={seed}")].iter().chain(settings) {
            train.arg("--set").arg(setting);
        }
        run(train.stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null()))?;
        let kept = folder.join(format!("{start}-{seed}"));
        let _ = std::fs::remove_dir_all(&kept);
        std::fs::rename(&out, &kept)?;
        Ok(kept)
    };
    SEEDS.iter().map(|seed| one(*seed)).collect()
}

fn last_validation(run: &Path) -> Result<f64> {
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl"))?;
    let last: Value = serde_json::from_str(metrics.lines().last().context("a run has an epoch")?)?;
    last["validation"]["accuracy"].as_f64().context("an epoch has an accuracy")
}

fn test(run: &Path) -> Result<f64> {
    let report: Value = serde_json::from_slice(&std::fs::read(run.join("report.json"))?)?;
    report["splits"]["test"]["accuracy"].as_f64().context("a test has an accuracy")
}

/// Draws accuracy over the number of reviews, at each start's best rate: a line through the means, and bars over the seeds.
fn draw(path: &Path, curves: &[Vec<(f64, Seeds)>; 2]) -> Result<()> {
    let area = SVGBackend::new(path, (640, 400)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area).margin(16).x_label_area_size(40).y_label_area_size(50).build_cartesian_2d(
        (150f64..13_000f64).log_scale().with_key_points(SIZES.map(|(size, _)| size as f64).to_vec()),
        60f64..95f64,
    )?;
    chart
        .configure_mesh()
        .x_desc("labelled reviews")
        .y_desc("accuracy on ChnSentiCorp's dev set, %")
        .light_line_style(WHITE)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    let looks = [("pre-trained", RGBColor(196, 84, 42)), ("random weights", RGBColor(90, 90, 90))];
    for (curve, (name, colour)) in curves.iter().zip(looks) {
        let means: Vec<_> = curve.iter().map(|(size, seeds)| (*size, 100.0 * mean(seeds))).collect();
        chart
            .draw_series([PathElement::new(means, colour.stroke_width(2))])?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        chart.draw_series(curve.iter().map(|(size, seeds)| {
            let (least, most) = range(seeds);
            PathElement::new([(*size, 100.0 * least), (*size, 100.0 * most)], colour.stroke_width(2))
        }))?;
    }
    chart.configure_series_labels().position(SeriesLabelPosition::LowerRight).border_style(BLACK).draw()?;
    area.present().context("the picture cannot be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_drawn_and_its_numbers_are_shown() -> Result<()> {
        let seeds = vec![0.5, 0.9, 0.7];
        assert_eq!(shown(&seeds), "70.0 % (50.0–90.0)");
        let path = std::env::temp_dir().join(format!("curve-{}.svg", std::process::id()));
        draw(&path, &[vec![(200.0, seeds.clone()), (9_600.0, vec![0.8])], vec![(200.0, seeds)]])?;
        assert!(std::fs::read_to_string(&path)?.contains("pre-trained"));
        Ok(std::fs::remove_file(path)?)
    }
}
