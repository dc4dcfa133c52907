//! Measures distillation: students with half and a quarter of the teacher's layers, trained with and without the teacher.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use plotters::prelude::*;
use serde_json::Value;

use crate::bench::median;
use crate::seeds::{Seeds, mean, range, shown};
use crate::workspace::{self, cargo, run};
use data_sets::{DATA_SETS, DataSet};

mod data_sets;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder with `models/multilingual-e5-small-zh` and, in `data`, `chnsenticorp`, `resume-ner` and `afqmc`
    #[arg(long)]
    assets: PathBuf,
    /// Trainings at a time, of one thread each
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Only this data set: `chnsenticorp`, `resume-ner` or `afqmc`
    #[arg(long)]
    only: Option<String>,
}

/// The layers of the teacher that each student keeps, of twelve.
const LAYERS: [&[usize]; 2] = [&[1, 3, 5, 7, 9, 11], &[3, 7, 11]];

/// The students with one number of layers.
struct Students {
    layers: usize,
    /// Speed relative to the teacher.
    speed: f64,
    with_teacher: Seeds,
    alone: Seeds,
}

/// A teacher and its students.
struct Measured {
    name: &'static str,
    teacher: f64,
    students: Vec<Students>,
}

/// Trains the models that are missing in `target/students`, prints a table for each data set and draws its plot for the README of
/// `kiln-train`.
pub fn measure(args: &Args) -> Result<()> {
    let asked: Vec<&DataSet> =
        DATA_SETS.iter().filter(|data| args.only.as_ref().is_none_or(|only| only == data.key)).collect();
    ensure!(
        !asked.is_empty(),
        "there is no such data set; expected {}",
        DATA_SETS.each_ref().map(|data| data.key).join(", ")
    );
    let target = workspace::metadata()?.target_directory.into_std_path_buf();
    let assets = args.assets.canonicalize().context("there is no folder of assets")?;
    run(&mut cargo(["build", "--release", "--workspace", "--exclude=xtask", "--bins"]))?;
    for data in asked {
        let bench = Bench { data, kiln: target.join("release/kiln"), folder: target.join("students").join(data.key) };
        let measured = bench.measured(&assets, args.jobs)?;
        eprint!("{}", table(&measured));
        draw(&workspace::root().join(format!("crates/kiln-train/students-{}.svg", data.key)), &measured)?;
    }
    Ok(())
}

struct Bench {
    data: &'static DataSet,
    kiln: PathBuf,
    folder: PathBuf,
}

impl Bench {
    fn measured(&self, assets: &Path, jobs: usize) -> Result<Measured> {
        fs::create_dir_all(self.folder.join("runs"))?;
        let has_unlabelled = self.data.prepare(assets, &self.folder)?;
        self.train("teacher", self.data.teacher, &["train.seed=1".to_owned()])?;
        let teacher = self.run_of("teacher");

        let mut waiting = Vec::new();
        for (layers, epochs_and_rate) in LAYERS.into_iter().zip(self.data.students) {
            for &seed in self.data.seeds {
                let common = [format!("train.seed={seed}"), format!("student.layers={layers:?}")];
                let mut distilled = vec![
                    format!("model.source=\"dir:{}/model\"", teacher.display()),
                    format!("distill.teacher=\"dir:{}\"", teacher.display()),
                    "distill.hidden=true".to_owned(),
                ];
                if has_unlabelled {
                    distilled.push(format!("distill.unlabelled=[\"{}/raw.txt\"]", self.folder.display()));
                }
                waiting.push((student(layers, seed, true), epochs_and_rate, [&common[..], &distilled].concat()));
                waiting.push((student(layers, seed, false), epochs_and_rate, common.to_vec()));
            }
        }
        let waiting = Mutex::new(waiting.into_iter());
        std::thread::scope(|scope| {
            let work = || -> Result<()> {
                loop {
                    let next = waiting.lock().expect("no thread has panicked").next();
                    let Some((name, epochs_and_rate, settings)) = next else { return Ok(()) };
                    self.train(&name, epochs_and_rate, &settings)?;
                }
            };
            let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("it returns its errors"))
        })?;

        let speeds = self.speeds(&assets.join(self.data.test))?;
        let students = LAYERS.iter().zip(speeds).map(|(layers, speed)| {
            let scores = |is_distilled| -> Result<Seeds> {
                self.data.seeds.iter().map(|seed| self.score(&student(layers, *seed, is_distilled))).collect()
            };
            Ok(Students { layers: layers.len(), speed, with_teacher: scores(true)?, alone: scores(false)? })
        });
        Ok(Measured {
            name: self.data.name,
            teacher: self.score("teacher")?,
            students: students.collect::<Result<_>>()?,
        })
    }

    fn run_of(&self, name: &str) -> PathBuf {
        self.folder.join("runs").join(name)
    }

    /// Trains a model, unless its run is complete.
    fn train(&self, name: &str, epochs_and_rate: &[&str], settings: &[String]) -> Result<()> {
        let out = self.run_of(name);
        if out.join("report.json").exists() {
            return Ok(());
        }
        if out.exists() {
            fs::remove_dir_all(&out)?;
        }
        let mut train = Command::new(&self.kiln);
        train.arg("train").arg("--recipe").arg(self.folder.join("recipe.toml")).arg("--out").arg(&out);
        for setting in epochs_and_rate.iter().copied().chain(settings.iter().map(String::as_str)) {
            train.args(["--set", setting]);
        }
        train.env("RAYON_NUM_THREADS", "1").env("KILN_CACHE", self.folder.join("cache"));
        let begin = Instant::now();
        run(train.stdout(Stdio::null()).stderr(Stdio::null()))?;
        eprintln!("{}: {name} {:.0} s", self.data.name, begin.elapsed().as_secs_f64());
        Ok(())
    }

    fn score(&self, name: &str) -> Result<f64> {
        let report: Value = serde_json::from_slice(&fs::read(self.run_of(name).join("report.json"))?)?;
        report["splits"]["test"][self.data.score].as_f64().context("a report has the score of its test split")
    }

    /// The speed of a student of each size relative to the teacher: `kiln eval` on the test split in bf16 with all threads, medians of
    /// alternating rounds.
    fn speeds(&self, test: &Path) -> Result<Vec<f64>> {
        const ROUNDS: usize = 5;
        let students = LAYERS.iter().map(|layers| student(layers, self.data.seeds[0], true));
        let models: Vec<String> = std::iter::once("teacher".to_owned()).chain(students).collect();
        let mut seconds = vec![Vec::new(); models.len()];
        for _ in 0..ROUNDS {
            for (model, seconds) in models.iter().zip(&mut seconds) {
                let mut eval = Command::new(&self.kiln);
                eval.args(["eval", "--precision", "bf16", "--json", "--model"]).arg(self.run_of(model));
                eval.arg("--data").arg(test).stdout(Stdio::null()).stderr(Stdio::null());
                let begin = Instant::now();
                run(&mut eval)?;
                seconds.push(begin.elapsed().as_secs_f64());
            }
        }
        let medians: Vec<f64> = seconds.iter().filter_map(|seconds| median(seconds)).collect();
        Ok(medians[1..].iter().map(|seconds| medians[0] / seconds).collect())
    }
}

/// The name of a student's run.
fn student(layers: &[usize], seed: u64, is_distilled: bool) -> String {
    format!("{}-{}-{seed}", layers.len(), if is_distilled { "distilled" } else { "alone" })
}

fn table(Measured { name, teacher, students }: &Measured) -> String {
    let mut table = String::from(
        "| data | layers | with the teacher | of its score | without | speed |\n|---|---|---|---|---|---|\n",
    );
    let _ = writeln!(table, "| {name} | 12, the teacher | {:.1} % | | | |", 100.0 * teacher);
    for Students { layers, speed, with_teacher, alone } in students {
        let share = 100.0 * mean(with_teacher) / teacher;
        let (with_teacher, alone) = (shown(with_teacher), shown(alone));
        let _ = writeln!(table, "| | {layers} | {with_teacher} | {share:.1} % | {alone} | {speed:.2} × |");
    }
    table
}

/// Draws the share of the teacher's score over the speed: a line through the means of the students trained with the teacher and one
/// through those without, and a bar from the lowest seed to the highest.
fn draw(path: &Path, Measured { name, teacher, students }: &Measured) -> Result<()> {
    let area = SVGBackend::new(path, (400, 340)).into_drawing_area();
    area.fill(&WHITE)?;
    let percent = |score: f64| 100.0 * score / teacher;
    let least = students.iter().map(|students| range(&students.with_teacher).0.min(range(&students.alone).0));
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .caption(*name, ("sans-serif", 16))
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.8f64..4.2f64, least.map(percent).fold(84.0, f64::min) - 2.0..102.0)?;
    chart
        .configure_mesh()
        .x_desc("times the teacher's speed")
        .y_desc("% of the teacher's score")
        .light_line_style(WHITE)
        .draw()?;
    type Of = fn(&Students) -> &Seeds;
    let looks: [(&str, RGBColor, Of); 2] = [
        ("with the teacher", RGBColor(196, 84, 42), |students| &students.with_teacher),
        ("without", RGBColor(90, 90, 90), |students| &students.alone),
    ];
    for (label, colour, seeds) in looks {
        let means = students.iter().map(|students| (students.speed, percent(mean(seeds(students)))));
        let line: Vec<_> = std::iter::once((1.0, 100.0)).chain(means).collect();
        chart
            .draw_series([PathElement::new(line.clone(), colour.stroke_width(2))])?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        chart.draw_series(line.iter().map(|place| Circle::new(*place, 3, colour.filled())))?;
        chart.draw_series(students.iter().map(|students| {
            let (least, most) = range(seeds(students));
            let ends = [(students.speed, percent(least)), (students.speed, percent(most))];
            PathElement::new(ends, colour.stroke_width(2))
        }))?;
    }
    chart.configure_series_labels().position(SeriesLabelPosition::LowerLeft).border_style(BLACK).draw()?;
    area.present().context("the picture cannot be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn students_are_tabled_and_drawn() -> Result<()> {
        let student = |layers, speed, score: f64| Students {
            layers,
            speed,
            with_teacher: vec![score, score + 0.02],
            alone: vec![score - 0.1],
        };
        let measured =
            Measured { name: "reviews", teacher: 0.9, students: vec![student(6, 1.9, 0.88), student(3, 3.5, 0.8)] };
        assert!(table(&measured).contains("| | 3 | 81.0 % (80.0–82.0) | 90.0 % | 70.0 % (70.0–70.0) | 3.50 × |"));
        let path = std::env::temp_dir().join(format!("students-{}.svg", std::process::id()));
        draw(&path, &measured)?;
        assert!(fs::read_to_string(&path)?.contains("with the teacher"));
        Ok(fs::remove_file(path)?)
    }
}
