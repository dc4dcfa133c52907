//! `cargo xtask bench`: the same work by Kiln and, if asked, by PyTorch, alternately in one go, each in a process of its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::python;
use crate::workspace::{self, cargo};

mod report;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also measure PyTorch, installed from Python's registry under `target/peers`
    #[arg(long)]
    peers: bool,
    /// Threads of each side
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Folder with `models` and `data`; without it the works on real reviews are left out
    #[arg(long)]
    assets: Option<PathBuf>,
    /// Only measures whose name holds this
    #[arg(long)]
    only: Option<String>,
}

/// One comparison: what each side is asked to do.
struct Measure {
    name: &'static str,
    ours: &'static str,
    theirs: &'static str,
    rounds: usize,
    /// Whether it needs the assets.
    real: bool,
}

const MEASURES: [Measure; 9] = [
    measure("forward of 8 × 128 tokens, f32", "forward f32", "forward f32", 9, false),
    measure("forward of 8 × 128 tokens, bf16", "forward bf16", "forward bf16", 9, false),
    measure("training step of 8 × 128 tokens, f32", "step f32", "step f32", 7, false),
    measure("training step of 8 × 128 tokens, bf16", "step bf16", "step bf16", 7, false),
    measure("one text of 20 tokens, f32", "latency f32", "latency f32", 9, false),
    measure("one text of 20 tokens, bf16", "latency bf16", "latency bf16", 9, false),
    measure("predicting 2,000 reviews, bf16", "predict bf16", "predict bf16", 3, true),
    measure("epoch over 2,000 reviews, bf16", "epoch bf16", "epoch bf16", 2, true),
    measure("the same, theirs f32, shuffled and padded", "epoch bf16", "shuffled f32", 1, true),
];

const fn measure(name: &'static str, ours: &'static str, theirs: &'static str, rounds: usize, real: bool) -> Measure {
    Measure { name, ours, theirs, rounds, real }
}

/// A side's seconds, or MB, one a round.
type Samples = Vec<f64>;

/// What was measured of one comparison.
struct Measured {
    name: &'static str,
    unit: &'static str,
    ours: Samples,
    theirs: Samples,
}

pub fn run(args: &Args) -> Result<()> {
    let folder = workspace::metadata()?.target_directory.into_std_path_buf();
    let worker = build_worker()?;
    let ours = || Worker::start(Command::new(&worker), args);
    let peer = if args.peers {
        Some(python::environment(&folder.join("peers"), "crates/kiln-train/benches/peers/requirements.txt")?)
    } else {
        None
    };
    let script = workspace::root().join("crates/kiln-train/benches/peers/torch_worker.py");
    let theirs = || {
        let Some(python) = &peer else { return Ok(None) };
        let mut command = Command::new(python);
        command.arg(&script);
        Worker::start(command, args).map(Some)
    };

    let wanted = |name: &str| args.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    let mut all = Vec::new();
    for measure in MEASURES.iter().filter(|measure| (!measure.real || args.assets.is_some()) && wanted(measure.name)) {
        let (mut ours, mut theirs) = (ours()?, theirs()?);
        let mut measured = Measured { name: measure.name, unit: "s", ours: vec![], theirs: vec![] };
        // The first round warms caches and allocators up; a long one has time to do so itself.
        for round in 0..measure.rounds + usize::from(!measure.real) {
            let keep = measure.real || round > 0;
            measured.ours.extend(Some(ours.ask(measure.ours)?).filter(|_| keep));
            if let Some(theirs) = &mut theirs {
                measured.theirs.extend(Some(theirs.ask(measure.theirs)?).filter(|_| keep));
            }
        }
        eprintln!("{}", report::line(&measured));
        all.push(measured);
    }
    if wanted("memory") {
        let mut measured = Measured {
            name: "peak memory of a training step of 8 × 128 tokens, f32",
            unit: "MB",
            ours: vec![],
            theirs: vec![],
        };
        measured.ours.push(peak_memory(ours()?)?);
        if let Some(theirs) = theirs()? {
            measured.theirs.push(peak_memory(theirs)?);
        }
        eprintln!("{}", report::line(&measured));
        all.push(measured);
    }
    let written = report::write(&folder.join("bench"), &all, args.threads)?;
    eprintln!("{}", written.display());
    Ok(())
}

/// A process that does what it is asked, one line a time.
struct Worker {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// Threads that spin after their work do so for less than this.
const PAUSE: Duration = Duration::from_millis(300);

impl Worker {
    fn start(mut command: Command, args: &Args) -> Result<Self> {
        let threads = args.threads.to_string();
        command.envs(["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "KILN_BENCH_THREADS"].map(|name| (name, &threads)));
        if let Some(assets) = &args.assets {
            command.env("KILN_ASSETS", std::path::absolute(assets)?);
        }
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start a worker")?;
        let requests = process.stdin.take().context("a worker reads its standard input")?;
        let answers = BufReader::new(process.stdout.take().context("a worker writes to its standard output")?);
        Ok(Self { process, requests, answers })
    }

    fn ask(&mut self, work: &str) -> Result<f64> {
        std::thread::sleep(PAUSE);
        writeln!(self.requests, "{work}").context("a worker has ended")?;
        self.requests.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        line.trim().parse().with_context(|| format!("a worker answered {line:?} to {work:?}"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It has nothing to lose, and may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// In MB, of a process that has done nothing else.
fn peak_memory(mut worker: Worker) -> Result<f64> {
    for _ in 0..3 {
        worker.ask("step f32")?;
    }
    worker.ask("memory f32")
}

fn build_worker() -> Result<PathBuf> {
    let build = cargo(["build", "--workspace", "--exclude=xtask", "--bench=worker", "--release"]);
    let mut programs: BTreeMap<String, PathBuf> =
        workspace::programs(build)?.into_iter().map(|program| (program.name, program.path)).collect();
    programs.remove("worker").context("the build has made no worker")
}
