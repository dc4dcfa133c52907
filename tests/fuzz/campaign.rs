//! The process that starts workers, limits their time, and collects their findings.

mod summary;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::Args;
use crate::case::{Cases, Outcome, Report};
use crate::mutate::mutant;
use crate::readers::Context;
use crate::worker::Message;

use summary::Summary;

/// A case with more processor time runs again alone, and is a finding if it then takes longer than [`PATIENCE`].
const TIME_LIMIT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);
/// Waiting uses no processor time, so a case is also stopped after this many times its limit in wall time.
const BUSY: u32 = 6;
/// The limit before a case begins, while the seeds of its reader are made.
const START: Duration = Duration::from_secs(60);

/// Runs the fuzzer. Returns true if there are no findings.
pub fn run(args: &Args) -> anyhow::Result<bool> {
    // Some inputs contain paths. A folder name of constant length keeps the offsets in them.
    let scratch = args.scratch.join(format!("{:010}", std::process::id()));
    std::fs::create_dir_all(&scratch).with_context(|| format!("{}: cannot be made", scratch.display()))?;
    let args = Args { scratch: std::path::absolute(&scratch)?, kiln: std::path::absolute(&args.kiln)?, ..args.clone() };
    let result = match args.case {
        Some(number) => one(&args, number),
        None => campaign(&args),
    };
    if args.case.is_none() {
        std::fs::remove_dir_all(&scratch).ok();
    }
    result
}

/// Runs one case and prints its report.
fn one(args: &Args, number: u64) -> anyhow::Result<bool> {
    let report = watch_one(args, number)?;
    println!("{}", summary::shown(&report));
    println!("{} bytes of input, {} KiB held at most", report.input, report.peak >> 10);
    println!("input: {}", args.scratch.join("input").display());
    Ok(!matches!(report.outcome, Outcome::Finding(..)))
}

fn campaign(args: &Args) -> anyhow::Result<bool> {
    let started = Instant::now();
    let deadline = Duration::from_secs(args.seconds);
    let mut summary = Summary::default();
    let mut first = args.first;
    while started.elapsed() < deadline {
        let mut worker = Worker::start(args, first)?;
        let stopped = worker.watch(&mut |report| {
            if let Outcome::Finding(..) = report.outcome {
                eprintln!("{}", summary::shown(&report));
            }
            summary.add(report);
            started.elapsed() < deadline
        });
        let Some(Stopped { number, why }) = stopped else { break };
        // A worker ends on its own only on a fatal error, such as a refused seed.
        let Some(number) = number.filter(|_| why != FAILED) else {
            bail!("no case could be run: {why}\n{}", worker.errors());
        };
        let mut report = match why.as_str() {
            TIMEOUT => watch_one(args, number)?,
            _ => lost(args, number, "crash", &format!("{why}: {}", worker.errors())),
        };
        if why == TIMEOUT && !matches!(report.outcome, Outcome::Finding(..)) {
            summary.slow += 1;
        }
        report.number = number;
        if let Outcome::Finding(..) = report.outcome {
            eprintln!("{}", summary::shown(&report));
        }
        summary.add(report);
        first = number + 1;
    }
    summary.print(args.seed, started.elapsed());
    Ok(summary.is_clean())
}

/// Runs a case in its own worker.
fn watch_one(args: &Args, number: u64) -> anyhow::Result<Report> {
    let mut worker = Worker::start(&Args { case: Some(number), ..args.clone() }, number)?;
    worker.limit = PATIENCE;
    let mut report = None;
    let stopped = worker.watch(&mut |ended| {
        report = Some(ended);
        false
    });
    if let Some(report) = report {
        return Ok(report);
    }
    let why = stopped.map_or_else(String::new, |stopped| stopped.why);
    let kind = if why == TIMEOUT { "timeout" } else { "crash" };
    let particulars = if why == TIMEOUT { format!("more than {} s", PATIENCE.as_secs()) } else { worker.errors() };
    Ok(lost(args, number, kind, &particulars))
}

/// The report of a case whose worker could not write one.
fn lost(args: &Args, number: u64, kind: &str, particulars: &str) -> Report {
    let context = Context { kiln: args.kiln.clone(), scratch: args.scratch.join("lost"), alone: true };
    let cases = Cases::new(args.seed, context);
    let reader = cases.reader(number).name.to_owned();
    let (seed, what) = match cases.seed(number) {
        Ok(seed) => (seed.name.to_owned(), mutant(&seed, args.seed, number).what()),
        Err(_) => (String::new(), String::new()),
    };
    let outcome = Outcome::Finding(kind.to_owned(), particulars.to_owned());
    Report { number, reader, seed, what, outcome, peak: 0, input: 0 }
}

const TIMEOUT: &str = "timeout";
/// The exit status of a worker that ended with an error.
const FAILED: &str = "exit status: 1";

/// The reason why a worker has stopped.
struct Stopped {
    /// The current case; `None` before the first one.
    number: Option<u64>,
    why: String,
}

struct Worker {
    child: Child,
    lines: Receiver<String>,
    /// The file with its standard error.
    errors: PathBuf,
    /// The time limit of a case.
    limit: Duration,
}

impl Worker {
    fn start(args: &Args, first: u64) -> anyhow::Result<Self> {
        let errors = args.scratch.join("errors.txt");
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--worker").arg("--kiln").arg(&args.kiln).arg("--scratch").arg(&args.scratch);
        command.args(["--seed", &args.seed.to_string(), "--first", &first.to_string()]);
        if let Some(only) = &args.only {
            command.args(["--only", only]);
        }
        if let Some(number) = args.case {
            command.args(["--case", &number.to_string()]);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&errors)?).spawn()?;
        let stdout = child.stdout.take().context("it was piped")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines, errors, limit: TIME_LIMIT })
    }

    /// Passes on reports until `report` returns false, which gives `None`, or the worker stops.
    fn watch(&mut self, report: &mut dyn FnMut(Report) -> bool) -> Option<Stopped> {
        let mut number = None;
        let mut limit = START;
        let mut clock = Clock::start(&self.child);
        loop {
            match self.lines.recv_timeout(Duration::from_millis(200)) {
                Ok(line) => match serde_json::from_str(&line) {
                    Ok(Message::Begin(begun)) => {
                        number = Some(begun);
                        limit = self.limit;
                        clock = Clock::start(&self.child);
                    }
                    Ok(Message::End(ended)) => {
                        limit = START;
                        clock = Clock::start(&self.child);
                        if !report(ended) {
                            self.kill();
                            return None;
                        }
                    }
                    Err(error) => return Some(Stopped { number, why: format!("{error}: {line}") }),
                },
                Err(RecvTimeoutError::Timeout) if !clock.is_past(limit, &self.child) => {}
                Err(RecvTimeoutError::Timeout) => {
                    self.kill();
                    return Some(Stopped { number, why: TIMEOUT.to_owned() });
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let why = self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                    return Some(Stopped { number, why });
                }
            }
        }
    }

    fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// The last lines of its standard error.
    fn errors(&self) -> String {
        tail(&self.errors)
    }
}

/// The wall time of a case, and its processor time where the system reports it.
struct Clock {
    wall: Instant,
    processor: Option<Duration>,
}

impl Clock {
    fn start(child: &Child) -> Self {
        Self { wall: Instant::now(), processor: processor_time(child) }
    }

    fn is_past(&self, limit: Duration, child: &Child) -> bool {
        let wall = self.wall.elapsed();
        let used = processor_time(child).zip(self.processor).map_or(wall, |(now, then)| now.saturating_sub(then));
        used > limit || wall > BUSY * limit
    }
}

/// Processor time of all threads of a process, from Linux's `/proc` in hundredths of a second.
fn processor_time(child: &Child) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(10 * ticks))
}

fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().rev().take(4).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}
