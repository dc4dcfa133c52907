//! Python's own clients against the hub on loopback, and against the caches that Kiln fills: whether both understand each
//! other, and whether the tests' hub is like the true ones.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::python;
use crate::workspace::{self, cargo};

const FOLDER: &str = "crates/kiln-hub/tests/clients";

pub fn run() -> Result<()> {
    let target = workspace::metadata()?.target_directory.into_std_path_buf();
    let python = match python::environment(&target.join("clients"), &format!("{FOLDER}/requirements.txt")) {
        Ok(python) => python,
        // As the tests that need more than the checkout: where they must run, it is an error that they cannot.
        Err(error) if std::env::var_os("KILN_REQUIRE_ASSETS").is_some() => {
            return Err(
                error.context("Python's clients cannot be installed: they need python3 with venv, and a registry")
            );
        }
        Err(error) => {
            eprintln!("SKIPPED, because Python's clients cannot be installed: {error:#}");
            return Ok(());
        }
    };
    let build = cargo(["build", "--workspace", "--exclude=xtask", "--example=loopback", "--release"]);
    let programs = workspace::programs(build)?;
    let loopback = programs.iter().find(|program| program.name == "loopback").context("there is no loopback hub")?;
    let script = workspace::root().join(FOLDER).join("clients.py");
    let mut command = Command::new(python);
    let output = command.arg(script).arg(&loopback.path).output().context("cannot run Python")?;
    eprint!("{}", String::from_utf8_lossy(&output.stdout));
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        bail!("`{}` failed: {}", workspace::shown(&command), output.status);
    }
    Ok(())
}
