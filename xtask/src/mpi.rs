//! Tests of training in several processes under Open MPI, which is installed if it is missing and permissions allow it.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::{self, cargo};

/// Debian packages: the library, the launcher, and libclang, which reads the library's header.
const PACKAGES: [&str; 3] = ["libopenmpi-dev", "openmpi-bin", "libclang-dev"];

/// The whole workspace, as in the other steps, so that crates without MPI are not compiled again.
const WORKSPACE: [&str; 4] = ["--release", "--workspace", "--exclude=xtask", "--features=kiln/mpi"];

/// Runs the tests of the exchange between processes, and those of training.
pub fn run() -> Result<()> {
    if let Err(error) = install() {
        let packages = PACKAGES.join(", ");
        if std::env::var_os("KILN_REQUIRE_ASSETS").is_some() {
            return Err(error.context(format!("the tests of MPI need Debian's packages {packages}")));
        }
        eprintln!("SKIPPED the tests of MPI, which need Debian's packages {packages}: {error:#}");
        return Ok(());
    }
    // Built with the tests: a build of the example alone would compile its dependencies again with other features.
    let targets = ["--example=sums", "--test=ranks"];
    let programs = workspace::programs(cargo([&["build"], &WORKSPACE[..], &targets].concat()))?;
    let sums = programs.iter().find(|program| program.name == "sums").context("no program `sums` was built")?;
    for ranks in ["1", "3"] {
        let options = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-np", ranks];
        workspace::run(Command::new("mpirun").args(options).arg(&sums.path))?;
    }
    // One test at a time, because each starts several processes.
    let tests = ["--test=ranks", "--", "--test-threads=1"];
    workspace::run(&mut cargo([&["test"], &WORKSPACE[..], &tests].concat()))
}

fn install() -> Result<()> {
    let are_there = || {
        let query = Command::new("dpkg-query").args(["--show"]).args(PACKAGES).stdout(Stdio::null()).status();
        query.is_ok_and(|status| status.success())
    };
    if are_there() {
        return Ok(());
    }
    workspace::run(Command::new("apt-get").args(["--quiet", "update"]))?;
    let install = [&["--quiet", "--yes", "--no-install-recommends", "install"], &PACKAGES[..]].concat();
    workspace::run(Command::new("apt-get").args(install).env("DEBIAN_FRONTEND", "noninteractive"))?;
    if !are_there() {
        bail!("{} are not there after they were installed", PACKAGES.join(", "));
    }
    Ok(())
}
