//! Writes the run's folder: `model/`, `adapter/`, `checkpoints/`, `metrics.jsonl`, `report.json`, `report.html`,
//! `errors.tsv`, `run.toml`.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, bail};
use kiln_eval::{EpochScores, Page, Report, TrainReport};
use kiln_heads::{TaskModel, merge_adapter, save_adapter, save_model};
use kiln_hub::{Location, Source};
use kiln_train::{EpochReport, Error, Fingerprint, check_resumable};

use super::fit::Results;
use super::model::adapter;
use super::settle::Plan;
use crate::memory::{machine, peak_rss_bytes};
use crate::recipe::Files;
use crate::{Observer, RunOptions, Trained, UsageError};

/// Saves the model and writes the report.
pub(crate) fn save(
    plan: &Plan<'_>,
    model: TaskModel,
    results: Results,
    audit: &str,
    observer: &mut dyn Observer,
) -> anyhow::Result<Trained> {
    let report = Report {
        task: plan.recipe.task,
        model: plan.recipe.model.source.to_string(),
        backend: plan.backend.to_owned(),
        splits: results.splits,
        train: Some(TrainReport { peak_rss_bytes: peak_rss_bytes(), ..results.train }),
    };
    save_network(plan, model)?;
    if let Some(calibration) = results.calibration {
        calibration.write(&plan.folder.model())?;
        if plan.recipe.model.encoder.has_adapter() {
            calibration.write(&plan.folder.adapter())?;
        }
    }
    plan.tokenizer().save(&plan.folder.model())?;
    let (settings, machine) = (plan.settings(), machine());
    let page = Page {
        report: &report,
        epochs: &results.epochs,
        errors: &results.errors,
        audit,
        settings: &settings,
        machine: &machine,
    };
    write_report(&plan.folder.path, page)?;
    observer.stage("evaluate", "kiln-eval", &"report.json, report.html, errors.tsv");
    let test_file = match &plan.files {
        Files::Splits(splits) => Some(splits.test.clone().unwrap_or_else(|| splits.validation.clone())),
        Files::Divided { .. } => None,
        Files::Corpus { validation, .. } => validation.clone(),
    };
    let has_pairs = plan.recipe.data.columns.text_pair.is_some();
    let (folder, device) = (plan.folder.path.clone(), plan.device.clone());
    Ok(Trained { report, folder, test_file, has_pairs, device })
}

/// Writes the model. A model with adapters is written twice: the adapter alone, and a plain model with the adapter merged.
fn save_network(plan: &Plan<'_>, mut model: TaskModel) -> anyhow::Result<()> {
    if plan.recipe.model.encoder.has_adapter() {
        let adapter = adapter(plan, model.network.bert_mut());
        let base = match &plan.checkpoint.source {
            Source::Location(Location::HuggingFace(repository) | Location::ModelScope(repository)) => {
                repository.id().to_owned()
            }
            Source::Location(Location::Directory(folder)) => folder.display().to_string(),
            Source::Sample => "sample".to_owned(),
        };
        save_adapter(&plan.folder.adapter(), &model, &adapter, &base, plan.tokenizer().max_length())?;
        merge_adapter(&mut model);
        model.network.bert_mut().embeddings.read_words();
    }
    Ok(save_model(&plan.folder.model(), &model)?)
}

/// A run's folder.
#[derive(Debug)]
pub(crate) struct RunFolder {
    pub path: PathBuf,
    /// Whether the training resumes from the checkpoint in the folder.
    pub resume: bool,
    /// Whether the folder may hold a run already, which is resumed.
    may_hold_run: bool,
    /// Locked while this process trains in the folder.
    lock: OnceLock<File>,
}

/// Files that a run writes. Without a `run.toml` they are of something else.
const RESULTS: [&str; 5] =
    ["model/config.json", "adapter/adapter_config.json", "metrics.jsonl", "report.json", "errors.tsv"];

impl RunFolder {
    pub fn new(path: PathBuf, resume: bool) -> Self {
        Self { path, resume, may_hold_run: resume, lock: OnceLock::new() }
    }

    /// The requested folder, or the first free `runs/NAME-N`. A folder that holds a run is an error, unless the run is to
    /// be resumed and has the same settings and files. Nothing is written.
    pub fn choose(
        options: &RunOptions,
        fingerprint: &Fingerprint,
        observer: &mut dyn Observer,
    ) -> anyhow::Result<Self> {
        let path = match &options.out {
            Some(path) => path.clone(),
            None => (1..)
                .map(|number| PathBuf::from(format!("runs/{}-{number}", options.name)))
                .find(|path| !path.exists())
                .expect("numbers do not end"),
        };
        let has_run = path.join("run.toml").exists();
        let place = path.display();
        match (options.resume, has_run) {
            (false, true) => bail!(UsageError(format!(
                "{place} holds a run already; choose another --out, or continue that run with --resume"
            ))),
            (true, false) => bail!(UsageError(format!("{place} has no run to resume: there is no run.toml"))),
            (false, false) => match RESULTS.iter().find(|name| path.join(name).exists()) {
                Some(name) => bail!(UsageError(format!(
                    "{place} has `{name}` but no run.toml: a run would overwrite it; choose another --out"
                ))),
                None => Ok(Self::new(path, false)),
            },
            (true, true) => {
                let resume = is_resumable(&path.join("checkpoints"), fingerprint)?;
                if !resume {
                    observer.note(&format_args!("{place} holds no checkpoint yet: training starts from the beginning"));
                }
                Ok(Self { may_hold_run: true, ..Self::new(path, resume) })
            }
        }
    }

    /// Creates the folder and its subfolders.
    pub fn create(&self) -> anyhow::Result<()> {
        for path in [self.model(), self.checkpoints()] {
            std::fs::create_dir_all(&path).with_context(|| format!("{}: cannot be made", path.display()))?;
        }
        Ok(())
    }

    /// Locks the folder until this value is dropped, and deletes the unfinished checkpoints of a killed process.
    pub fn lock(&self) -> anyhow::Result<()> {
        let path = self.checkpoints().join(".lock");
        let lock = File::create(&path).with_context(|| format!("{}: cannot be made", path.display()))?;
        // Some file systems have no locks.
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            bail!(UsageError(format!("another process is training in {}; choose another --out", self.path.display())));
        }
        // Another process may have trained here since the folder was chosen.
        if !self.may_hold_run && self.path.join("run.toml").exists() {
            bail!(UsageError(format!("{} holds a run by now; choose another --out", self.path.display())));
        }
        self.lock.get_or_init(|| lock);
        // No other process writes here now.
        let checkpoints = self.checkpoints();
        kiln_files::remove_unfinished(&checkpoints)
            .with_context(|| format!("{}: an unfinished file cannot be deleted", checkpoints.display()))
    }

    pub fn model(&self) -> PathBuf {
        self.path.join("model")
    }

    pub fn adapter(&self) -> PathBuf {
        self.path.join("adapter")
    }

    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Writes every setting to `run.toml`.
    pub fn write_recipe(&self, settings: &str) -> anyhow::Result<()> {
        write(&self.path.join("run.toml"), settings.as_bytes())
    }

    /// Writes `metrics.jsonl`, one line per validation. The checkpoint holds the same reports, so that no line is lost if
    /// the run is killed before the file is written.
    pub fn write_metrics(&self, epochs: &[EpochReport]) -> anyhow::Result<()> {
        let mut lines = Vec::new();
        for report in epochs {
            serde_json::to_writer(&mut lines, report)?;
            lines.push(b'\n');
        }
        write(&self.path.join("metrics.jsonl"), &lines)
    }
}

fn is_resumable(checkpoints: &Path, fingerprint: &Fingerprint) -> anyhow::Result<bool> {
    match check_resumable(checkpoints, fingerprint) {
        Err(error @ Error::OtherRun { .. }) => bail!(UsageError(format!(
            "{error}\nresume it with its original settings and files, or choose another --out for a new run"
        ))),
        other => Ok(other?),
    }
}

/// Writes the files of an evaluation.
pub(crate) fn write_report(folder: &Path, page: Page<'_>) -> anyhow::Result<()> {
    write(&folder.join("errors.tsv"), page.errors.as_bytes())?;
    write(&folder.join("report.html"), page.to_html().as_bytes())?;
    write(&folder.join("report.json"), &serde_json::to_vec_pretty(page.report)?)
}

/// A validation as the report's page shows it. `updates` is the number of updates per epoch.
pub(crate) fn epoch_scores(report: &EpochReport, updates: f64) -> EpochScores {
    EpochScores {
        epoch: report.step as f64 / updates,
        train_loss: report.train_loss,
        learning_rate: report.learning_rate,
        gradient_norm: report.gradient_norm,
        validation: report.validation.clone(),
    }
}

/// Writes a file atomically.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    kiln_files::write(path, bytes).with_context(|| format!("{}: cannot be written", path.display()))
}
