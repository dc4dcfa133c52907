//! A mutation fuzzer over everything that Kiln reads: `cargo xtask fuzz`, whose options are below.
//!
//! A case is a number. Together with the campaign's seed, it determines the reader, a small valid input, and one to three
//! changes to one of the input's files. The reader must either refuse the result with an error that names the file, or read
//! it and return a plausible result. Cases run in another process with limited memory and time, so that a crash does not
//! affect other cases.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program speaks to whoever runs it")]

mod campaign;
mod case;
mod mutate;
mod readers;
mod seed;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use peak_alloc::PeakAlloc;

/// Tracks the peak memory of a case.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The options of the fuzzer.
#[derive(Clone, Debug, Parser)]
#[command(name = "fuzz")]
pub struct Args {
    /// Seconds to run; the last case is finished
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seed of the changes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run only the cases of this reader
    #[arg(long, value_parser = readers::READERS.map(|reader| reader.name))]
    only: Option<String>,
    /// Run only this case, and keep its input
    #[arg(long)]
    case: Option<u64>,
    /// Number of the first case
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Path of the `kiln` binary
    #[arg(long)]
    kiln: PathBuf,
    /// Folder for inputs; a subfolder is made and removed
    #[arg(long)]
    scratch: PathBuf,
    /// Run cases and print their reports as lines of JSON
    #[arg(long, hide = true)]
    worker: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = if args.worker { worker::run(&args) } else { campaign::run(&args) };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
