//! Development tasks: `cargo xtask pipeline` builds and runs Kiln, `cargo xtask ci` checks the whole workspace, and
//! `cargo xtask tidy` runs the checks that no compiler has.
#![expect(clippy::print_stderr, reason = "a command line speaks to whoever runs it")]

mod backends;
mod bench;
mod browser;
mod ci;
mod clients;
mod cluster;
mod figures;
mod fuzz;
mod mpi;
mod package;
mod pipeline;
mod python;
mod sample_curve;
mod sample_model;
mod seeds;
mod students;
mod tidy;
mod workspace;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Builds, runs and checks the workspace")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Builds `kiln` in release mode and runs `kiln pipeline`.
    Pipeline(pipeline::Args),
    /// Runs all checks or the named ones, the cheapest first, and stops at the first failure.
    Ci(ci::Args),
    /// Fuzzes every reader with random changes to small inputs.
    Fuzz(fuzz::Args),
    /// Benchmarks Kiln, with `--peers` also PyTorch, onnxruntime and OpenVINO; writes `target/bench/report.md`.
    Bench(bench::Args),
    /// Trains the sample's checkpoint again from raw text; takes about two hours.
    SampleModel(sample_model::Args),
    /// Fine-tunes the sample's checkpoint and random weights on growing training sets; draws the learning curve.
    SampleCurve(sample_curve::Args),
    /// Trains students with half and a quarter of a teacher's layers, with and without the teacher; draws scores and speeds.
    Students(students::Args),
    /// Checks the project's own rules for sources, crate map and files.
    Tidy,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Pipeline(args) => pipeline::run(&args),
        Command::Ci(args) => ci::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::SampleModel(args) => sample_model::make(&args),
        Command::SampleCurve(args) => sample_curve::measure(&args),
        Command::Students(args) => students::measure(&args),
        Command::Tidy => tidy::run(),
    }
}
