//! Tests of distributed prediction on Ballista: the crate's own tests, its example, and real processes with faults.

use std::process::Command;

use anyhow::{Context, Result};

use crate::workspace::{self, cargo};

/// The whole workspace, as in the other steps, so that crates without the engine are not compiled again.
const WORKSPACE: [&str; 4] = ["--release", "--workspace", "--exclude=xtask", "--features=kiln/cluster"];

/// Runs the tests that need the engine.
pub fn run() -> Result<()> {
    // Built together: a build of the example alone would compile its dependencies again with other features.
    let targets = ["--no-run", "--lib", "--example=functions", "--test=cluster"];
    let programs = workspace::programs(cargo([&["test"], &WORKSPACE[..], &targets].concat()))?;
    for name in ["functions", "kiln_cluster"] {
        let program = programs.iter().find(|program| program.name == name);
        let program = program.with_context(|| format!("no program `{name}` was built"))?;
        workspace::run(Command::new(&program.path).current_dir(workspace::root().join("crates/kiln-cluster")))?;
    }
    // One test at a time, because each starts several processes.
    let tests = ["--test=cluster", "--", "--test-threads=1"];
    workspace::run(&mut cargo([&["test"], &WORKSPACE[..], &tests].concat()))
}
