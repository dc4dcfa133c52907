//! Python packages for what is measured or tried against Python's: pinned, in a virtual environment of their own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// The Python of a virtual environment in `folder` that has the packages of `requirements`, files of the workspace. What each
/// of them asked for when it was installed is noted in the folder under its name.
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
