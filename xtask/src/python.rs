//! Virtual environments with pinned Python packages, for benchmarks and compatibility tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Installs the packages of `requirements`, files of the workspace, into a virtual environment in `folder`, and returns its
/// Python. A copy of each installed requirements file is kept in the folder.
pub fn environment(folder: &Path, requirements: &[&str]) -> Result<PathBuf> {
    let python = folder.join("bin/python");
    for requirements in requirements {
        let requirements = workspace::root().join(requirements);
        let wanted = std::fs::read_to_string(&requirements).context("cannot read what Python packages are wanted")?;
        let installed = folder.join(requirements.file_name().context("requirements are a file")?);
        if std::fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
            continue;
        }
        if !python.exists() {
            workspace::run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
        }
        workspace::run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(&requirements))?;
        if !python.exists() {
            bail!("{} is not there", python.display());
        }
        std::fs::write(&installed, wanted).context("cannot note what is installed")?;
    }
    Ok(python)
}
