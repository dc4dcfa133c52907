use std::time::{Duration, Instant};

use crate::workspace::{self, Program, cargo};
use crate::{browser, clients, fuzz, gpu, mpi, package, tidy};
use anyhow::{Context, Result, bail};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// All when none is named.
    #[arg(value_parser = STEPS.map(|(name, _)| name))]
    steps: Vec<String>,
}

type Step = fn() -> Result<()>;

/// The checks by name, the cheapest first. They share one target folder and one profile, so that what one has compiled the
/// next need not.
const STEPS: [(&str, Step); 12] = [
    ("fmt", || workspace::run(&mut cargo(["fmt", "--all", "--check"]))),
    ("tidy", tidy::run),
    ("package", package::run),
    ("clippy", clippy),
    ("doc", || each_half("doc", &["--no-deps"], &[])),
    ("test", || each_half("test", &[], &[])),
    ("examples", run_examples),
    ("fuzz", || fuzz::run(&fuzz::Args::default())),
    ("clients", clients::run),
    ("browser", browser::run),
    ("mpi", mpi::run),
    ("gpu", gpu::check),
];

/// Runs the checks up to the first that fails, and ends with a table of what they took.
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

/// All steps but the last have passed.
fn print_times(times: &[(&str, Duration)], last: &str) {
    eprintln!();
    for (at, (name, time)) in times.iter().enumerate() {
        let outcome = if at + 1 == times.len() { last } else { "ok" };
        eprintln!("{name:<10} {:>7.1} s  {outcome}", time.as_secs_f64());
    }
    let sum: Duration = times.iter().map(|(_, time)| *time).sum();
    eprintln!("{:<10} {:>7.1} s", "all", sum.as_secs_f64());
}

/// All targets, and the fuzzer by name: it is no test that `cargo test` runs, so it is not among them.
fn clippy() -> Result<()> {
    let last = ["--", "-D", "warnings"];
    each_half("clippy", &["--all-targets"], &last)?;
    let fuzzer = ["clippy", "--release", "--workspace", "--exclude=xtask", "--test=fuzz"];
    workspace::run(&mut cargo(fuzzer.into_iter().chain(last)))
}

/// Runs a cargo command on the crates, then on this program by itself: what it depends on gives `serde` further features,
/// and together with the crates it would have all of burn compiled once more.
fn each_half(command: &str, options: &[&str], last: &[&str]) -> Result<()> {
    for half in [["--workspace", "--exclude=xtask"].as_slice(), &["--package=xtask"]] {
        let arguments = [&[command, "--release"], half, options, last].concat();
        workspace::run(cargo(arguments).env("RUSTDOCFLAGS", "-D warnings"))?;
    }
    Ok(())
}

/// Runs the examples that the workspace has, without arguments. They are built all at once: built package by package,
/// each would compile its dependencies with other features.
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
