use std::time::{Duration, Instant};

use crate::workspace::{self, Program, cargo};
use crate::{backends, browser, clients, cluster, fuzz, mpi, package, tidy};
use anyhow::{Context, Result, bail};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The checks to run; all by default.
    #[arg(value_parser = STEPS.map(|(name, _)| name))]
    steps: Vec<String>,
}

type Step = fn() -> Result<()>;

/// The checks by name, the cheapest first. They share one target folder and one profile, so that a later check does not
/// compile again what an earlier one has compiled.
const STEPS: [(&str, Step); 13] = [
    ("fmt", || workspace::run(&mut cargo(["fmt", "--all", "--check"]))),
    ("tidy", tidy::run),
    ("package", package::run),
    ("clippy", clippy),
    ("doc", || check_each_half("doc", &["--no-deps"], &[])),
    ("test", test),
    ("examples", run_examples),
    ("fuzz", || fuzz::run(&fuzz::Args::default())),
    ("clients", clients::run),
    ("browser", browser::run),
    ("mpi", mpi::run),
    ("cluster", cluster::run),
    ("backends", backends::run),
];

/// Runs the checks, stops at the first failure, and prints a table of their times.
pub fn run(args: &Args) -> Result<()> {
    let mut times = Vec::with_capacity(STEPS.len());
    let is_asked = |name: &str| args.steps.is_empty() || args.steps.iter().any(|step| step == name);
    for (name, step) in STEPS.into_iter().filter(|(name, _)| is_asked(name)) {
        eprintln!("── {name}");
        let start = Instant::now();
        let outcome = step();
        times.push((name, start.elapsed()));
        if let Err(error) = outcome {
            print_times(&times, "FAILED");
            return Err(error.context(format!("{name} failed")));
        }
    }
    print_times(&times, "ok");
    Ok(())
}

/// Prints the time of each step and its outcome. All steps before the last have passed.
fn print_times(times: &[(&str, Duration)], last: &str) {
    eprintln!();
    for (at, (name, time)) in times.iter().enumerate() {
        let outcome = if at + 1 == times.len() { last } else { "ok" };
        eprintln!("{name:<10} {:>7.1} s  {outcome}", time.as_secs_f64());
    }
    let sum: Duration = times.iter().map(|(_, time)| *time).sum();
    eprintln!("{:<10} {:>7.1} s", "all", sum.as_secs_f64());
}

/// All packages except this program. Its dependencies enable further features of `serde`, so that all of burn would be
/// compiled again if they were built together.
const CRATES: [&str; 2] = ["--workspace", "--exclude=xtask"];
const XTASK: [&str; 1] = ["--package=xtask"];

/// Checks all targets, and the fuzzer by name: `--all-targets` does not include it, because `cargo test` does not run it.
fn clippy() -> Result<()> {
    let last = ["--", "-D", "warnings"];
    check_each_half("clippy", &["--all-targets"], &last)?;
    check("clippy", &[&CRATES[..], &EVERY_BACKEND, &["--test=fuzz"], &last].concat())
}

fn test() -> Result<()> {
    for half in [&CRATES[..], &XTASK] {
        workspace::run(&mut cargo([&["test", "--release"], half].concat()))?;
    }
    Ok(())
}

/// Steps that only check the code enable every backend, so that the GPU backends are type-checked too.
const EVERY_BACKEND: [&str; 1] = ["--features=kiln/ndarray,kiln/cuda,kiln/wgpu"];

fn check_each_half(command: &str, options: &[&str], last: &[&str]) -> Result<()> {
    check(command, &[&CRATES[..], &EVERY_BACKEND, options, last].concat())?;
    check(command, &[&XTASK[..], options, last].concat())
}

/// With `DOCS_RS`, the build scripts do not need CUDA's files.
fn check(command: &str, arguments: &[&str]) -> Result<()> {
    let mut check = cargo([&[command, "--release"], arguments].concat());
    workspace::run(check.env("DOCS_RS", "1").env("RUSTDOCFLAGS", "-D warnings"))
}

/// Runs all examples of the workspace, without arguments. They are built together, because a build of a single package
/// would compile its dependencies with other features.
fn run_examples() -> Result<()> {
    let mut examples =
        workspace::programs(cargo(["build", "--workspace", "--exclude=xtask", "--examples", "--release"]))?;
    examples.sort_by(|a, b| (&a.package, &a.name).cmp(&(&b.package, &b.name)));
    for Program { package, name, path } in examples {
        let shown = format!("{package} --example {name}");
        let start = Instant::now();
        let output = std::process::Command::new(&path)
            .current_dir(workspace::root())
            .stdin(std::process::Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", path.display()))?;
        if !output.status.success() {
            eprint!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            bail!("{shown} failed: {}", output.status);
        }
        eprintln!("{shown:<40} {:>6.1} s", start.elapsed().as_secs_f64());
    }
    Ok(())
}
