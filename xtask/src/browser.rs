//! Tests the page of `kiln serve` in Debian's Chromium, which is installed if it is missing and permissions allow it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::{self, cargo};

const PROGRAMS: [&str; 2] = ["/usr/bin/chromium", "/usr/bin/chromedriver"];
const SCRIPT: &str = "crates/kiln-serve/tests/browser/page.py";

pub fn run() -> Result<()> {
    if let Err(error) = install() {
        // As for tests that need assets: if they are required, it is an error that they cannot run.
        if std::env::var_os("KILN_REQUIRE_ASSETS").is_some() {
            return Err(error.context(format!("{SCRIPT} needs Debian's packages chromium and chromium-driver")));
        }
        eprintln!("SKIPPED {SCRIPT}, because there is no browser: {error:#}");
        return Ok(());
    }
    let build = ["build", "--workspace", "--exclude=xtask", "--bins", "--examples", "--release"];
    let built = workspace::programs(cargo(build))?;
    let mut command = Command::new("python3");
    command.arg(workspace::root().join(SCRIPT));
    for name in ["kiln", "ask"] {
        let program = built.iter().find(|program| program.name == name);
        command.arg(&program.with_context(|| format!("no program `{name}` was built"))?.path);
    }
    workspace::run(&mut command)
}

fn install() -> Result<()> {
    let are_there = || PROGRAMS.iter().all(|program| Path::new(program).exists());
    if are_there() {
        return Ok(());
    }
    workspace::run(Command::new("apt-get").args(["--quiet", "update"]))?;
    let install = ["--quiet", "--yes", "--no-install-recommends", "install", "chromium", "chromium-driver"];
    workspace::run(Command::new("apt-get").args(install).env("DEBIAN_FRONTEND", "noninteractive"))?;
    if !are_there() {
        bail!("{} are not there after they were installed", PROGRAMS.join(" and "));
    }
    Ok(())
}
