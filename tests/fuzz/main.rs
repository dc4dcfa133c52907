//! A mutation fuzzer over everything that Kiln reads: `cargo xtask fuzz`, whose options are below.
//!
//! A case is a number. With the campaign's seed it decides the reader, a small input that the reader accepts, and one to
//! three changes to one of its files. The reader must refuse the result with an error that names the file, or read it and
//! give an answer that can be right. Cases run in another process, whose memory and time are limited, so that one that
//! breaks down costs no more than itself.
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

/// Counts what a case holds at its most.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What it is asked for.
#[derive(Clone, Debug, Parser)]
#[command(name = "fuzz")]
pub struct Args {
    /// How long to go on; the case that runs then is finished
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Decides, with a case's number, what is changed and how
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A reader: the cases of others are left out
    #[arg(long, value_parser = readers::READERS.map(|reader| reader.name))]
    only: Option<String>,
    /// One case, whose input is kept
    #[arg(long)]
    case: Option<u64>,
    /// The first case
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// The command line's binary
    #[arg(long)]
    kiln: PathBuf,
    /// For inputs; a folder in it is made and removed
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
