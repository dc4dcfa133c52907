//! `cargo xtask pipeline` builds and runs Kiln; `cargo xtask ci` checks the whole workspace, `cargo xtask tidy` what no
//! compiler checks.
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
    /// Builds `kiln` in release and runs `kiln pipeline`.
    Pipeline(pipeline::Args),
    /// Runs every check, or those named, the cheapest first, up to the first that fails.
    Ci(ci::Args),
    /// Changes small inputs at random, and has every reader take or refuse them.
    Fuzz(fuzz::Args),
    /// Measures Kiln, and with `--peers` PyTorch beside it; writes `target/bench/report.md`.
    Bench(bench::Args),
    /// Makes the sample's checkpoint anew from raw text; takes about two hours.
    SampleModel(sample_model::Args),
    /// Fine-tunes the sample's checkpoint and, beside it, its architecture from random weights; draws the curve of its card.
    SampleCurve(sample_curve::Args),
    /// Trains students with half and a quarter of a teacher's layers, with the teacher and without; draws their scores and speeds.
    Students(students::Args),
    /// Runs the project's own checks of its sources, its crate map and its files.
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
