//! The process that runs cases one after another, with limited memory.

use std::io::Write as _;

use serde::{Deserialize, Serialize};

use crate::Args;
use crate::case::{Cases, Report, note_panics};
use crate::readers::Context;

/// The limit of the address space of a worker and of the commands that it runs.
#[cfg(target_os = "linux")]
const MEMORY_LIMIT: u64 = 4 << 30;

/// A line of a worker's output.
#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    /// A case has begun.
    Begin(u64),
    /// A case has ended.
    End(Report),
}

/// Runs the case `--case`, or all cases from `--first` without an end.
pub fn run(args: &Args) -> anyhow::Result<bool> {
    #[cfg(target_os = "linux")]
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_AS, MEMORY_LIMIT, MEMORY_LIMIT)?;
    note_panics();
    let alone = args.case.is_some();
    let context = Context { kiln: args.kiln.clone(), scratch: args.scratch.clone(), alone };
    let mut cases = Cases::new(args.seed, context);
    let last = args.case.unwrap_or(u64::MAX);
    for number in args.case.unwrap_or(args.first)..=last {
        if args.only.as_ref().is_some_and(|only| args.case.is_none() && only != cases.reader(number).name) {
            continue;
        }
        cases.prepare(number)?;
        write(&Message::Begin(number))?;
        let report = cases.run(number)?;
        write(&Message::End(report))?;
    }
    Ok(true)
}

fn write(message: &Message) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&line)?;
    Ok(stdout.flush()?)
}
