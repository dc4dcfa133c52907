//! A run's folder: `model/`, `checkpoints/`, `metrics.jsonl`, `report.json`, `report.html`, `errors.tsv`, `run.toml`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use kiln_eval::{Report, to_html};
use kiln_train::EpochReport;
use sha2::{Digest, Sha256};

use crate::cli::UsageError;
use crate::recipe::{Files, Recipe};

#[derive(Debug)]
pub struct RunFolder {
    pub path: PathBuf,
}

impl RunFolder {
    /// The folder asked for, or the next free `runs/NAME-N`. One that holds a run is refused, unless it is to be resumed.
    pub fn create(out: Option<&Path>, name: &str, resume: bool) -> anyhow::Result<Self> {
        let path = match out {
            Some(path) => path.to_owned(),
            None => (1..)
                .map(|number| PathBuf::from(format!("runs/{name}-{number}")))
                .find(|path| !path.exists())
                .expect("numbers do not end"),
        };
        let folder = Self { path };
        let begun = folder.path.join("run.toml").exists();
        if begun && !resume {
            let path = folder.path.display();
            bail!(UsageError(format!(
                "{path} holds a run already; choose another --out, or go on with it by --resume"
            )));
        }
        if resume && !folder.checkpoints().join("last.safetensors").exists() {
            let path = folder.path.display();
            bail!(UsageError(format!("{path} holds no interrupted run: there is no checkpoints/last.safetensors")));
        }
        for path in [folder.model(), folder.checkpoints()] {
            std::fs::create_dir_all(&path).with_context(|| format!("{}: cannot be made", path.display()))?;
        }
        Ok(folder)
    }

    pub fn model(&self) -> PathBuf {
        self.path.join("model")
    }

    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Every setting, loadable as a recipe, with what else the run depends on in comments above. The recipe's sources are
    /// those that came, and `files` is where its data lie.
    pub fn write_recipe(
        &self,
        recipe: &Recipe,
        files: &Files<PathBuf>,
        backend: &str,
        weights_hash: &str,
    ) -> anyhow::Result<()> {
        let mut text = format!("# kiln {}, backend {backend}\n", env!("CARGO_PKG_VERSION"));
        writeln!(text, "# sha256 {weights_hash} of the checkpoint's weights")?;
        for file in files.all().into_iter().filter(|file| file.is_file()) {
            writeln!(text, "# sha256 {} of {}", sha256([file])?, file.display())?;
        }
        writeln!(text, "\n{}", recipe.to_toml())?;
        write(&self.path.join("run.toml"), text.as_bytes())
    }

    /// Adds a line to `metrics.jsonl`.
    pub fn add_metrics(&self, report: &EpochReport) -> anyhow::Result<()> {
        let path = self.path.join("metrics.jsonl");
        let mut line = serde_json::to_vec(report)?;
        line.push(b'\n');
        let add = || File::options().create(true).append(true).open(&path)?.write_all(&line);
        add().with_context(|| format!("{}: cannot be written", path.display()))
    }
}

/// Writes what an evaluation found.
pub fn write_report(folder: &Path, report: &Report, errors: &str) -> anyhow::Result<()> {
    write(&folder.join("errors.tsv"), errors.as_bytes())?;
    write(&folder.join("report.html"), to_html(report).as_bytes())?;
    write(&folder.join("report.json"), &serde_json::to_vec_pretty(report)?)
}

/// Writes a file, whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    kiln_files::write(path, bytes).with_context(|| format!("{}: cannot be written", path.display()))
}

/// SHA-256 of files, one after another, in hexadecimal.
pub fn sha256<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> anyhow::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    for path in paths {
        let path = path.as_ref();
        let mut add = || -> io::Result<()> {
            let mut file = kiln_files::open(path)?;
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(()),
                    read => hash.update(&buffer[..read]),
                }
            }
        };
        add().with_context(|| format!("{}: cannot be read", path.display()))?;
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The largest resident memory of this process so far, in bytes; 0 where the system does not tell.
pub fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}
