//! What a teacher is worth to a small model: students of half and of a quarter of its layers, trained with it and without it.

use std::collections::HashSet;
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

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder with `models/multilingual-e5-small-zh`, `data/chnsenticorp` and `data/resume-ner`
    #[arg(long)]
    assets: PathBuf,
    /// Trainings at a time, of one thread each
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Of the data sets this one alone: `chnsenticorp` or `resume-ner`
    #[arg(long)]
    only: Option<String>,
}

const SEEDS: [u64; 3] = [1, 2, 3];
/// Of the teacher's twelve.
const LAYERS: [&[usize]; 2] = [&[1, 3, 5, 7, 9, 11], &[3, 7, 11]];
/// Labelled reviews of ChnSentiCorp; the others are texts that the teacher alone says something of.
const LABELLED: usize = 4_000;
const VALIDATION: usize = 600;

struct DataSet {
    name: &'static str,
    /// What it is judged by, in `report.json`.
    score: &'static str,
    /// `{assets}` and `{folder}` stand for folders.
    recipe: &'static str,
    test: &'static str,
    /// Whether it is divided into labelled reviews and texts alone.
    has_unlabelled: bool,
    teacher: &'static [&'static str],
    student: &'static [&'static str],
}

static DATA_SETS: [DataSet; 2] = [
    DataSet {
        name: "ChnSentiCorp",
        score: "accuracy",
        recipe: r#"task = "sequence-classification"
[model]
source = "dir:{assets}/models/multilingual-e5-small-zh"
encoder = "full"
pooling = "mean"
[data]
train = "{folder}/train.tsv"
validation = "{folder}/validation.tsv"
test = "{assets}/data/chnsenticorp/dev.tsv"
header = false
text = 0
label = 1
[train]
batch_size = 16
precision = "bf16"
metric = "accuracy"
"#,
        test: "data/chnsenticorp/dev.tsv",
        has_unlabelled: true,
        teacher: &["train.epochs=2", "train.learning_rate=5e-5"],
        student: &["train.epochs=3", "train.learning_rate=1e-4"],
    },
    DataSet {
        name: "résumés",
        score: "entity_f1",
        recipe: r#"task = "token-classification"
[model]
source = "dir:{assets}/models/multilingual-e5-small-zh"
encoder = "full"
[data]
train = "{assets}/data/resume-ner/train.char.bmes"
validation = "{assets}/data/resume-ner/dev.char.bmes"
test = "{assets}/data/resume-ner/test.char.bmes"
format = "conll"
[train]
batch_size = 16
max_length = 192
precision = "bf16"
metric = "entity_f1"
"#,
        test: "data/resume-ner/test.char.bmes",
        has_unlabelled: false,
        teacher: &["train.epochs=3", "train.learning_rate=2e-4"],
        student: &["train.epochs=10", "train.learning_rate=4e-4"],
    },
];

/// Students of some layers.
struct Students {
    layers: usize,
    /// How many times as fast as the teacher they answer.
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

/// Trains what is not trained yet in `target/students`, prints a table and draws a plot for the README of `kiln-train`.
pub fn measure(args: &Args) -> Result<()> {
    let is_asked =
        |data: &&DataSet| args.only.as_ref().is_none_or(|only| data.test.starts_with(&format!("data/{only}/")));
    let asked: Vec<&DataSet> = DATA_SETS.iter().filter(is_asked).collect();
    ensure!(!asked.is_empty(), "there is no such data set; expected `chnsenticorp` or `resume-ner`");
    let target = workspace::metadata()?.target_directory.into_std_path_buf();
    let assets = args.assets.canonicalize().context("there is no folder of assets")?;
    run(&mut cargo(["build", "--release", "--workspace", "--exclude=xtask", "--bins"]))?;
    let mut measured = Vec::new();
    for data in asked {
        let bench = Bench { data, kiln: target.join("release/kiln"), folder: target.join("students").join(data.name) };
        measured.push(bench.measured(&assets, args.jobs)?);
        eprint!("{}", table(&measured));
    }
    draw(&workspace::root().join("crates/kiln-train/students.svg"), &measured)
}

struct Bench {
    data: &'static DataSet,
    kiln: PathBuf,
    folder: PathBuf,
}

impl Bench {
    fn measured(&self, assets: &Path, jobs: usize) -> Result<Measured> {
        fs::create_dir_all(self.folder.join("runs"))?;
        if self.data.has_unlabelled {
            divide_reviews(&assets.join("data/chnsenticorp"), &self.folder)?;
        }
        let recipe = self.data.recipe.replace("{assets}", &assets.display().to_string());
        let recipe = recipe.replace("{folder}", &self.folder.display().to_string());
        fs::write(self.folder.join("recipe.toml"), recipe)?;
        self.train("teacher", self.data.teacher, &["train.seed=1".to_owned()])?;
        let teacher = self.run_of("teacher");

        let mut waiting = Vec::new();
        for layers in LAYERS {
            for seed in SEEDS {
                let common = [format!("train.seed={seed}"), format!("student.layers={layers:?}")];
                let mut distilled = vec![
                    format!("model.source=\"dir:{}/model\"", teacher.display()),
                    format!("distill.teacher=\"dir:{}\"", teacher.display()),
                    "distill.hidden=true".to_owned(),
                ];
                if self.data.has_unlabelled {
                    distilled.push(format!("distill.unlabelled=[\"{}/raw.txt\"]", self.folder.display()));
                }
                waiting.push((student(layers, seed, true), [&common[..], &distilled].concat()));
                waiting.push((student(layers, seed, false), common.to_vec()));
            }
        }
        let waiting = Mutex::new(waiting.into_iter());
        std::thread::scope(|scope| {
            let work = || -> Result<()> {
                loop {
                    let next = waiting.lock().expect("no thread has panicked").next();
                    let Some((name, settings)) = next else { return Ok(()) };
                    self.train(&name, self.data.student, &settings)?;
                }
            };
            let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("it returns its errors"))
        })?;

        let speeds = self.speeds(&assets.join(self.data.test))?;
        let students = LAYERS.iter().zip(speeds).map(|(layers, speed)| {
            let scores = |is_distilled| -> Result<Seeds> {
                SEEDS.iter().map(|seed| self.score(&student(layers, *seed, is_distilled))).collect()
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

    /// Unless the run is there.
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
        report["splits"]["test"][self.data.score].as_f64().context("a test has a score")
    }

    /// How many times as fast as the teacher a student of each size predicts the test split, in bf16 with all threads: medians of
    /// rounds in turn.
    fn speeds(&self, test: &Path) -> Result<Vec<f64>> {
        const ROUNDS: usize = 5;
        let students = LAYERS.iter().map(|layers| student(layers, SEEDS[0], true));
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

/// The name of a run.
fn student(layers: &[usize], seed: u64, is_distilled: bool) -> String {
    format!("{}-{}-{seed}", layers.len(), if is_distilled { "distilled" } else { "alone" })
}

/// Labelled reviews, those to validate on, and texts alone; none of them twice, and none that is in the dev set.
fn divide_reviews(data: &Path, folder: &Path) -> Result<()> {
    let read = |name: &str| fs::read_to_string(data.join(name)).with_context(|| format!("there is no {name}"));
    fn text(row: &str) -> &str {
        row.rsplit_once('\t').map_or(row, |(text, _)| text).trim()
    }
    let (dev, train) = (read("dev.tsv")?, read("train.tsv")?);
    let mut seen: HashSet<&str> = dev.lines().map(text).collect();
    let rows: Vec<&str> = train.lines().filter(|row| seen.insert(text(row))).collect();
    // In another order, which is the same every time: a step that shares no factor with their number comes to each row once.
    const STEP: usize = 7_919;
    ensure!(!rows.len().is_multiple_of(STEP), "{} reviews cannot be mixed with the prime step {STEP}", rows.len());
    let mut mixed: Vec<&str> = (0..rows.len()).map(|at| rows[at * STEP % rows.len()]).collect();
    let raw = mixed.split_off(LABELLED + VALIDATION);
    let validation = mixed.split_off(LABELLED);
    let write = |name: &str, rows: Vec<&str>| fs::write(folder.join(name), format!("{}\n", rows.join("\n")));
    write("train.tsv", mixed)?;
    write("validation.tsv", validation)?;
    Ok(write("raw.txt", raw.into_iter().map(text).collect())?)
}

fn table(measured: &[Measured]) -> String {
    let mut table = String::from(
        "| data | layers | with the teacher | of its score | without | speed |\n|---|---|---|---|---|---|\n",
    );
    for Measured { name, teacher, students } in measured {
        let _ = writeln!(table, "| {name} | 12, the teacher | {:.1} % | | | |", 100.0 * teacher);
        for Students { layers, speed, with_teacher, alone } in students {
            let share = 100.0 * mean(with_teacher) / teacher;
            let (with_teacher, alone) = (shown(with_teacher), shown(alone));
            let _ = writeln!(table, "| | {layers} | {with_teacher} | {share:.1} % | {alone} | {speed:.2} × |");
        }
    }
    table
}

/// Of each data set a chart: the share of the teacher's score over the speed, a line through the means of the students with it
/// and of those without, a bar from the lowest seed to the highest.
fn draw(path: &Path, measured: &[Measured]) -> Result<()> {
    let area = SVGBackend::new(path, (400 * measured.len() as u32, 340)).into_drawing_area();
    area.fill(&WHITE)?;
    for (area, Measured { name, teacher, students }) in
        area.split_evenly((1, measured.len().max(1))).iter().zip(measured)
    {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .caption(*name, ("sans-serif", 16))
            .x_label_area_size(40)
            .y_label_area_size(50)
            .build_cartesian_2d(0.8f64..4.2f64, 82f64..102f64)?;
        chart
            .configure_mesh()
            .x_desc("times the teacher's speed")
            .y_desc("% of the teacher's score")
            .light_line_style(WHITE)
            .draw()?;
        let looks = [("with the teacher", RGBColor(196, 84, 42)), ("without", RGBColor(90, 90, 90))];
        for (at, (label, colour)) in looks.into_iter().enumerate() {
            let of = |students: &Students| if at == 0 { students.with_teacher.clone() } else { students.alone.clone() };
            let percent = |score: f64| 100.0 * score / teacher;
            let means = students.iter().map(|students| (students.speed, percent(mean(&of(students)))));
            let line: Vec<_> = std::iter::once((1.0, 100.0)).chain(means).collect();
            chart
                .draw_series([PathElement::new(line.clone(), colour.stroke_width(2))])?
                .label(label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
            chart.draw_series(line.iter().map(|place| Circle::new(*place, 3, colour.filled())))?;
            chart.draw_series(students.iter().map(|students| {
                let (least, most) = range(&of(students));
                PathElement::new(
                    [(students.speed, percent(least)), (students.speed, percent(most))],
                    colour.stroke_width(2),
                )
            }))?;
        }
        chart.configure_series_labels().position(SeriesLabelPosition::LowerLeft).border_style(BLACK).draw()?;
    }
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
        let measured = [measured];
        assert!(table(&measured).contains("| | 3 | 81.0 % (80.0–82.0) | 90.0 % | 70.0 % (70.0–70.0) | 3.50 × |"));
        let path = std::env::temp_dir().join(format!("students-{}.svg", std::process::id()));
        draw(&path, &measured)?;
        assert!(fs::read_to_string(&path)?.contains("with the teacher"));
        Ok(fs::remove_file(path)?)
    }

    #[test]
    fn no_review_is_in_two_files() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("reviews-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let rows: Vec<String> = (0..LABELLED + VALIDATION + 50).map(|at| format!("review {at}\tpositive")).collect();
        fs::write(folder.join("dev.tsv"), format!("{}\nanother\tnegative\n", rows[..10].join("\n")))?;
        fs::write(folder.join("train.tsv"), [&rows[..], &rows[..5]].concat().join("\n"))?;
        divide_reviews(&folder, &folder)?;
        let counted = |name: &str| fs::read_to_string(folder.join(name)).map(|text| text.lines().count());
        assert_eq!(
            [counted("train.tsv")?, counted("validation.tsv")?, counted("raw.txt")?],
            [LABELLED, VALIDATION, 40]
        );
        let all = ["train.tsv", "validation.tsv", "raw.txt"].map(|name| fs::read_to_string(folder.join(name)));
        let all = all.into_iter().collect::<std::io::Result<Vec<String>>>()?.concat();
        let texts: HashSet<&str> = all.lines().map(|row| row.split('\t').next().unwrap_or(row)).collect();
        assert_eq!((texts.len(), texts.contains("review 3")), (LABELLED + VALIDATION + 40, false));
        Ok(fs::remove_dir_all(folder)?)
    }
}
