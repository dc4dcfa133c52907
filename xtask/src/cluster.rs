//! Predictions that several processes share, on Ballista: the crate's own tests, its example, and real processes with faults.

use anyhow::Result;

use crate::workspace::{self, cargo};

/// The whole workspace, as in the other steps, so that what does not use the engine is not compiled again.
const WORKSPACE: [&str; 4] = ["--release", "--workspace", "--exclude=xtask", "--features=kiln/cluster"];

/// Runs the tests that need the engine.
pub fn run() -> Result<()> {
    workspace::run(&mut cargo([&["test"], &WORKSPACE[..], &["--example=functions"]].concat()))?;
    // The unit tests of `kiln-cluster`, by the module that they are all in.
    workspace::run(&mut cargo([&["test"], &WORKSPACE[..], &["--lib", "--", "bulk::"]].concat()))?;
    // One test after another: each has processes enough.
    let tests = ["--test=cluster", "--", "--test-threads=1"];
    workspace::run(&mut cargo([&["test"], &WORKSPACE[..], &tests].concat()))
}
