//! Compatibility tests with Python packages: the hubs' own clients with a hub on loopback and with the caches that Kiln
//! fills, transformers with the folders that Kiln saves and loads, and model clients with a running `kiln serve`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::python;
use crate::workspace::{self, Program, cargo};

/// A Python script, the packages that it needs, and the programs whose paths it gets as arguments.
struct Check {
    /// Folder of the virtual environment in the target folder.
    environment: &'static str,
    requirements: &'static str,
    script: &'static str,
    programs: &'static [&'static str],
}

const CHECKS: [Check; 3] = [
    Check {
        environment: "clients",
        requirements: "crates/kiln-hub/tests/clients/requirements.txt",
        script: "crates/kiln-hub/tests/clients/clients.py",
        programs: &["loopback"],
    },
    Check {
        // The same packages as `cargo xtask bench --peers` installs: PyTorch takes 7 GB.
        environment: "peers",
        requirements: "crates/kiln-train/benches/peers/requirements.txt",
        script: "crates/kiln/tests/transformers/folders.py",
        programs: &["kiln", "logits"],
    },
    Check {
        environment: "serve-clients",
        requirements: "crates/kiln-serve/tests/clients/requirements.txt",
        script: "crates/kiln-serve/tests/clients/clients.py",
        programs: &["kiln", "ask"],
    },
];

pub fn run() -> Result<()> {
    let target = workspace::metadata()?.target_directory.into_std_path_buf();
    let mut pythons = Vec::new();
    for check in CHECKS {
        pythons.extend(check.install(&target)?.map(|python| (check, python)));
    }
    if pythons.is_empty() {
        return Ok(());
    }
    let build = ["build", "--workspace", "--exclude=xtask", "--bins", "--examples", "--release"];
    let built = workspace::programs(cargo(build))?;
    pythons.iter().try_for_each(|(check, python)| check.run(python, &built))
}

impl Check {
    /// The Python with the packages; `None` if they cannot be installed and are not required.
    fn install(&self, target: &Path) -> Result<Option<PathBuf>> {
        match python::environment(&target.join(self.environment), &[self.requirements]) {
            Ok(python) => Ok(Some(python)),
            // As for tests that need assets: if they are required, it is an error that they cannot run.
            Err(error) if std::env::var_os("KILN_REQUIRE_ASSETS").is_some() => {
                Err(error.context(format!("{} needs python3 with venv, and a registry with its packages", self.script)))
            }
            Err(error) => {
                eprintln!("SKIPPED {}, because its packages cannot be installed: {error:#}", self.script);
                Ok(None)
            }
        }
    }

    fn run(&self, python: &Path, built: &[Program]) -> Result<()> {
        let mut command = Command::new(python);
        command.arg(workspace::root().join(self.script));
        for name in self.programs {
            let program = built.iter().find(|program| program.name == *name);
            command.arg(&program.with_context(|| format!("no program `{name}` was built"))?.path);
        }
        let output = command.output().context("cannot run Python")?;
        eprint!("{}", String::from_utf8_lossy(&output.stdout));
        if !output.status.success() {
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            bail!("`{}` failed: {}", workspace::shown(&command), output.status);
        }
        Ok(())
    }
}
