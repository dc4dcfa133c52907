use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use kiln_backend::Backend;
use kiln_metrics::{Bootstrap, almost_stochastic_order};
use kiln_schema::{Split, Task};
use kiln_train::Metric;
use serde::Serialize;
use serde_json::Value;

use crate::recipe::Sweep;
use crate::{Error, ErrorKind, Fold, Interrupted, Observer, Recipe, RunOptions, UsageError, train};

mod table;

/// The result of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Swept {
    /// The sweep's folder, with `sweep.tsv`, `sweep.json`, `sweep.html`, and the folder of each run in `runs`.
    pub path: PathBuf,
    /// The metric on the validation split that ranks the candidates.
    pub metric: &'static str,
    /// The candidates, the best first. With halving, candidates that reached a later rung come first.
    pub candidates: Vec<Candidate>,
    /// The total time of all trainings.
    pub seconds: f64,
}

/// A combination of values for the varied keys, and its scores.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Candidate {
    /// `KEY = VALUE` for each varied key.
    pub settings: Vec<String>,
    /// The epochs of its last training.
    pub epochs: usize,
    /// The mean score of its runs; absent if one of them diverged.
    pub score: Option<f64>,
    /// The mean score of its runs on the test split, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_score: Option<f64>,
    /// 95 % confidence interval of the mean, by a bootstrap over the runs; absent for fewer than three runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// How far the best candidate is from being better than this one at every quantile of the runs' scores. Below 0.5, the
    /// best is almost stochastically dominant. Absent for the best candidate, and if either has fewer than three runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_violation: Option<f64>,
    /// One run for each seed and fold.
    pub runs: Vec<Run>,
}

/// A training of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// The run's folder, relative to the sweep's folder.
    pub path: PathBuf,
    /// The run's `train.seed`.
    pub seed: u64,
    /// The fold that it was validated on, from 1; absent if the recipe's own validation split was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold: Option<usize>,
    /// The score of the best checkpoint; absent if the training diverged.
    pub score: Option<f64>,
    /// The score of the same checkpoint on the test split, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_score: Option<f64>,
    #[serde(skip)]
    metric: &'static str,
    #[serde(skip)]
    seconds: f64,
}

/// Trains every candidate of a recipe's `[sweep]`, one after another, for each seed and fold, and writes the results. With
/// `options.resume`, complete trainings are not repeated, and an interrupted one is resumed.
///
/// # Errors
/// The same as for [`train`], except that a training that diverges is no error: its candidate is ranked last. Also when
/// there is nothing to sweep over, or when the folder holds another sweep.
pub fn sweep<B: Backend>(
    recipe: &Path,
    overrides: &[String],
    options: &RunOptions,
    observer: &mut dyn Observer,
) -> Result<Swept, Error> {
    let sweeping = Sweeping::new(recipe, overrides, options)?;
    let mut candidates = sweeping.candidates.clone();
    let rungs = sweeping.sweep.rungs(sweeping.recipe.train.epochs);
    let mut left: Vec<usize> = (0..candidates.len()).collect();
    let mut seconds = 0.0;
    for (rung, &epochs) in rungs.iter().enumerate() {
        let is_last = rung + 1 == rungs.len();
        // A single candidate has nothing to compete with, so it skips the shorter rungs.
        if left.len() == 1 && !is_last {
            continue;
        }
        for (place, &candidate) in left.iter().enumerate() {
            let what = format!("rung {} of {}, candidate {} of {}", rung + 1, rungs.len(), place + 1, left.len());
            observer.stage("sweep", "kiln", &format_args!("{what}: {}", candidates[candidate].settings.join(", ")));
            let (epochs, runs) = sweeping.runs::<B>(candidate, epochs, observer)?;
            seconds += runs.iter().map(|run| run.seconds).sum::<f64>();
            candidates[candidate] = candidates[candidate].with_runs(epochs, runs);
        }
        left.sort_by(|&a, &b| sweeping.order(&candidates[a], &candidates[b]).then(a.cmp(&b)));
        if let (false, Some(halving)) = (is_last, sweeping.sweep.halving) {
            // With only one left, the rung before the last would decide.
            left.truncate(left.len().div_ceil(halving.factor).max(2));
        }
    }
    candidates.sort_by(|a, b| sweeping.rung(b).cmp(&sweeping.rung(a)).then_with(|| sweeping.order(a, b)));
    sweeping.compare_with_best(&mut candidates);
    let runs = candidates.iter().flat_map(|candidate| &candidate.runs);
    // A run that diverged has no report.
    let scored = runs.clone().find(|run| run.score.is_some()).or(runs.clone().next());
    let metric = scored.map_or(sweeping.recipe.metric().name(), |run| run.metric);
    let swept = Swept { path: sweeping.folder, metric, candidates, seconds };
    table::write(&swept)?;
    Ok(swept)
}

/// A sweep whose candidates have been checked.
struct Sweeping<'a> {
    file: &'a Path,
    overrides: &'a [String],
    options: &'a RunOptions,
    folder: PathBuf,
    recipe: Recipe,
    sweep: Sweep,
    seeds: Vec<u64>,
    candidates: Vec<Candidate>,
}

impl<'a> Sweeping<'a> {
    fn new(file: &'a Path, overrides: &'a [String], options: &'a RunOptions) -> anyhow::Result<Self> {
        let (recipe, sweep) = Recipe::load_swept(file, (overrides, &[]))?;
        let seeds = if sweep.seeds.is_empty() { vec![recipe.train.seed] } else { sweep.seeds.clone() };
        if sweep.keys.is_empty() && seeds.len() < 2 && sweep.folds == 0 {
            let file = file.display();
            bail!(UsageError(format!(
                "{file}: there is nothing to sweep over; expected keys, seeds or folds in [sweep]"
            )));
        }
        if sweep.folds > 0 && recipe.task == Task::MaskedLm {
            bail!(UsageError("`sweep.folds` needs labelled data; the recipe reads raw text".to_owned()));
        }
        let settings = sweep.candidates();
        for candidate in &settings {
            Recipe::load_swept(file, (overrides, candidate))?;
        }
        let candidates = settings.into_iter().map(|settings| Candidate { settings, ..Candidate::default() }).collect();
        let no_folder = || UsageError("expected --out, the sweep's folder".to_owned());
        let folder = options.out.clone().ok_or_else(no_folder)?;
        let sweeping = Self { file, overrides, options, folder, recipe, sweep, seeds, candidates };
        sweeping.begin()?;
        Ok(sweeping)
    }

    /// Creates the folder, or checks that it holds this sweep.
    fn begin(&self) -> anyhow::Result<()> {
        let path = self.folder.join("sweep.toml");
        let settings = format!("{}\n{}", self.recipe.to_toml(), self.sweep.to_toml());
        let place = self.folder.display();
        let found =
            kiln_files::read_if_present(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
        match (found, self.options.resume) {
            (Some(_), false) => bail!(UsageError(format!(
                "{place} holds a sweep already; choose another --out, or continue that sweep with --resume"
            ))),
            (None, true) => bail!(UsageError(format!("{place} has no sweep to resume: there is no sweep.toml"))),
            (Some(found), true) if found != settings.as_bytes() => bail!(UsageError(format!(
                "{place} holds a sweep with other settings, as sweep.toml says; resume it with these, or choose another --out"
            ))),
            (Some(_), true) => return Ok(()),
            (None, false) => {}
        }
        std::fs::create_dir_all(&self.folder).with_context(|| format!("{place}: cannot be made"))?;
        kiln_files::write(&path, settings.as_bytes()).with_context(|| format!("{}: cannot be written", path.display()))
    }

    /// Trains a candidate for each seed and fold, in a rung of `epochs`. Also returns the candidate's own epochs, which
    /// differ if `train.epochs` is varied.
    fn runs<B: Backend>(
        &self,
        candidate: usize,
        mut epochs: usize,
        observer: &mut dyn Observer,
    ) -> Result<(usize, Vec<Run>), Error> {
        let mut runs = Vec::new();
        let folds = (0..self.sweep.folds.max(1)).map(|fold| (self.sweep.folds > 0).then_some(fold));
        for (seed, fold) in self.seeds.iter().flat_map(|seed| folds.clone().map(move |fold| (*seed, fold))) {
            let mut name = format!("{}-seed{seed}", candidate + 1);
            let mut settings = self.candidates[candidate].settings.clone();
            settings.push(format!("train.seed = {seed}"));
            if let Some(fold) = fold {
                name += &format!("-fold{}", fold + 1);
            }
            if self.sweep.halving.is_some() {
                name += &format!("-epochs{epochs}");
                settings.push(format!("train.epochs = {epochs}"));
            }
            let (recipe, _) =
                Recipe::load_swept(self.file, (self.overrides, &settings)).map_err(anyhow::Error::from)?;
            epochs = recipe.train.epochs;
            let path = Path::new("runs").join(name);
            let folder = self.folder.join(&path);
            let options = RunOptions {
                fold: fold.map(|index| Fold { index, count: self.sweep.folds }),
                resume: folder.join("run.toml").exists(),
                out: Some(folder.clone()),
                ..self.options.clone()
            };
            if !is_complete(&folder) {
                self.train::<B>(&recipe, &options, observer)?;
            }
            runs.push(self.read(path, (seed, fold.map(|fold| fold + 1)))?);
        }
        Ok((epochs, runs))
    }

    /// The epochs of a candidate's last rung; 0 without halving.
    fn rung(&self, candidate: &Candidate) -> usize {
        self.sweep.halving.map_or(0, |_| candidate.epochs)
    }

    /// Trains once. A divergence is recorded in a file, because it would occur again.
    fn train<B: Backend>(
        &self,
        recipe: &Recipe,
        options: &RunOptions,
        observer: &mut dyn Observer,
    ) -> Result<(), Error> {
        let folder = options.out.as_deref().expect("each run has its folder");
        match train::<B>(recipe, options, observer) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                let place = self.folder.display();
                let message = format!("the runs so far are saved; continue with --resume --out {place}");
                return Err(anyhow::Error::from(Interrupted(message)).into());
            }
            Err(error) if error.is_divergence() => {
                observer.warning(&error);
                let failed = || format!("{}: cannot be written", folder.display());
                kiln_files::write(&folder.join(DIVERGED), format!("{error}\n").as_bytes()).with_context(failed)?;
            }
            Err(error) => return Err(error),
        }
        // A complete run does not need its checkpoints.
        let checkpoints = folder.join("checkpoints");
        Ok(std::fs::remove_dir_all(&checkpoints)
            .with_context(|| format!("{}: cannot be deleted", checkpoints.display()))?)
    }

    /// Reads the scores of a complete run.
    fn read(&self, path: PathBuf, (seed, fold): (u64, Option<usize>)) -> anyhow::Result<Run> {
        let file = self.folder.join(&path).join(REPORT);
        let cannot = || format!("{}: cannot be read", file.display());
        let report = kiln_files::read_if_present(&file).with_context(cannot)?;
        let report: Value =
            report.map(|json| serde_json::from_slice(&json)).transpose().with_context(cannot)?.unwrap_or_default();
        let metric = self.metric(&report);
        let of_split = |split: Split| report["splits"][split.name()].get(metric.name());
        if !report.is_null() && of_split(Split::Validation).is_none() {
            bail!("{}: found no `splits.validation.{}`", file.display(), metric.name());
        }
        let score = |split| of_split(split).and_then(Value::as_f64);
        let seconds = report["train"]["seconds"].as_f64().unwrap_or(0.0);
        let (score, test_score) = (score(Split::Validation), score(Split::Test));
        Ok(Run { path, seed, fold, metric: metric.name(), score, test_score, seconds })
    }

    /// The metric that selected a run's checkpoint. It may depend on a tag scheme that the run inferred.
    fn metric(&self, report: &Value) -> Metric {
        let inferred = &report["splits"][Split::Validation.name()]["tag_scheme"];
        self.recipe.metric_of(serde_json::from_value(inferred.clone()).ok().or(self.recipe.data.tag_scheme))
    }

    /// Compares the runs of the first candidate with those of the other candidates of the same rung.
    fn compare_with_best(&self, candidates: &mut [Candidate]) {
        let sign = if self.recipe.metric() == Metric::Loss { -1.0 } else { 1.0 };
        let scores = |candidate: &Candidate| {
            let scores: Option<Vec<f64>> = candidate.runs.iter().map(|run| Some(run.score? * sign)).collect();
            scores.filter(|scores| scores.len() >= 3)
        };
        let Some((best, others)) = candidates.split_first_mut() else { return };
        let Some(of_best) = scores(best) else { return };
        for other in others.iter_mut().filter(|other| self.rung(other) == self.rung(best)) {
            other.best_violation = scores(other).map(|of_other| almost_stochastic_order(&of_best, &of_other));
        }
    }

    /// Sorts better candidates first, and diverged ones last.
    fn order(&self, a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
        let rank = |candidate: &Candidate| match candidate.score {
            Some(score) if self.recipe.metric() == Metric::Loss => -score,
            Some(score) => score,
            None => f64::NEG_INFINITY,
        };
        rank(b).total_cmp(&rank(a))
    }
}

const REPORT: &str = "report.json";
const DIVERGED: &str = "diverged.txt";

/// Whether a run is complete. Its report is written last.
fn is_complete(folder: &Path) -> bool {
    folder.join(REPORT).exists() || folder.join(DIVERGED).exists()
}

impl Candidate {
    fn with_runs(&self, epochs: usize, runs: Vec<Run>) -> Self {
        let mean =
            |score: fn(&Run) -> Option<f64>| Some(runs.iter().map(score).sum::<Option<f64>>()? / runs.len() as f64);
        let (score, test_score) = (mean(|run| run.score), mean(|run| run.test_score));
        let scores: Option<Vec<f64>> = runs.iter().map(|run| run.score).collect();
        let interval = scores.filter(|scores| scores.len() >= 3).map(|scores| {
            let mean = |drawn: &[usize]| drawn.iter().map(|&run| scores[run]).sum::<f64>() / drawn.len() as f64;
            Bootstrap::default().interval(scores.len(), mean)
        });
        Self { settings: self.settings.clone(), epochs, score, test_score, interval, best_violation: None, runs }
    }
}
