//! `cargo xtask bench`: the same work by Kiln and, if asked, by PyTorch, onnxruntime and OpenVINO, alternately in one go, each in
//! a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::figures::{self, FIGURES};
use crate::python;
use crate::workspace::{self, cargo};

mod report;
mod serve;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// Also measure PyTorch, onnxruntime and OpenVINO, installed from Python's registry under `target/peers`
    #[arg(long)]
    peers: bool,
    /// Threads of each side
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Folder with `models` and `data`; without it the works on real reviews are left out
    #[arg(long)]
    assets: Option<PathBuf>,
    /// Only measures whose name holds this, or another `--only`
    #[arg(long)]
    only: Vec<String>,
    /// Put the figures into the README of `kiln-kernels`
    #[arg(long)]
    keep: bool,
    /// Measure on a graphics card; PyTorch needs one of NVIDIA's
    #[arg(long, conflicts_with_all = ["keep", "profile"])]
    card: Option<Card>,
    /// Compute on both sides as a processor does that has no more than these instructions
    #[arg(long, conflicts_with_all = ["card", "profile"])]
    instructions: Option<Instructions>,
    /// Only the time of each operation of a forward pass
    #[arg(long)]
    profile: bool,
}

/// A backend of graphics cards; its feature has the same name.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Card {
    Cuda,
    Wgpu,
}

impl Card {
    fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Wgpu => "wgpu",
        }
    }
}

/// Instructions of most processors, for measures on one that has more.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Instructions {
    Avx2,
    /// With products of bytes.
    Avx2Vnni,
    Avx512,
}

impl Instructions {
    /// As our workers know them, as PyTorch does, and as oneDNN does, which computes for PyTorch and OpenVINO.
    fn names(self) -> [&'static str; 3] {
        match self {
            Self::Avx2 => ["avx2", "avx2", "AVX2"],
            Self::Avx2Vnni => ["avx2-vnni", "avx2", "AVX2_VNNI"],
            Self::Avx512 => ["avx512", "avx512", "AVX512_CORE"],
        }
    }

    /// Has a process use no others.
    fn limit(self, command: &mut Command) {
        let [ours, torch, onednn] = self.names();
        command.env("KILN_BENCH_INSTRUCTIONS", ours).env("ATEN_CPU_CAPABILITY", torch);
        command.envs(["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"].map(|name| (name, onednn)));
    }

    /// The file of the figures.
    fn figures(self) -> String {
        format!("benches/figures-{}.md", self.names()[0])
    }
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// Measures `kiln serve` under load and faults
    Serve(serve::Args),
}

/// One comparison: what each side is asked to do.
#[derive(Clone, Copy)]
struct Measure {
    name: &'static str,
    ours: &'static str,
    peer: Peer,
    theirs: &'static str,
    rounds: usize,
    /// Whether it needs the assets.
    real: bool,
}

/// Whom we are measured against.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    PyTorch,
    OnnxRuntime,
    OpenVino,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::PyTorch => "PyTorch",
            Self::OnnxRuntime => "onnxruntime",
            Self::OpenVino => "OpenVINO",
        }
    }

    fn script(self) -> PathBuf {
        let name = match self {
            Self::PyTorch => "torch_worker.py",
            Self::OnnxRuntime => "onnx_worker.py",
            Self::OpenVino => "openvino_worker.py",
        };
        workspace::root().join("crates/kiln-train/benches/peers").join(name)
    }
}

use Peer::{OnnxRuntime, OpenVino, PyTorch};

const MEASURES: [Measure; 35] = [
    fresh("forward of 8 × 128 tokens, f32", "forward f32", PyTorch, 9),
    fresh("forward of 8 × 128 tokens, f32", "forward f32", OnnxRuntime, 9),
    fresh("forward of 8 × 128 tokens, f32", "forward f32", OpenVino, 9),
    fresh("forward of 8 × 128 tokens, bf16", "forward bf16", PyTorch, 9),
    fresh("forward of 8 × 128 tokens, bf16", "forward bf16", OpenVino, 9),
    fresh("forward of 8 × 128 tokens, int8", "forward int8", PyTorch, 9),
    fresh("forward of 8 × 128 tokens, int8", "forward int8", OnnxRuntime, 9),
    fresh("forward of 8 × 128 tokens, int8", "forward int8", OpenVino, 9),
    fresh("training step of 8 × 128 tokens, f32", "step f32", PyTorch, 7),
    fresh("training step of 8 × 128 tokens, bf16", "step bf16", PyTorch, 7),
    fresh("the same under LoRA, f32; theirs with peft", "lora f32", PyTorch, 7),
    fresh("the same under LoRA, bf16; theirs with peft", "lora bf16", PyTorch, 7),
    fresh("one text of 20 tokens, f32", "latency f32", PyTorch, 9),
    fresh("one text of 20 tokens, f32", "latency f32", OnnxRuntime, 9),
    fresh("one text of 20 tokens, f32", "latency f32", OpenVino, 9),
    fresh("one text of 20 tokens, bf16", "latency bf16", PyTorch, 9),
    fresh("one text of 20 tokens, bf16", "latency bf16", OpenVino, 9),
    fresh("one text of 20 tokens, int8", "latency int8", OnnxRuntime, 9),
    fresh("one text of 20 tokens, int8", "latency int8", OpenVino, 9),
    fresh("RoBERTa-base, forward of 8 × 128 tokens, f32", "forward-roberta f32", PyTorch, 7),
    fresh("RoBERTa-base, forward of 8 × 128 tokens, bf16", "forward-roberta bf16", PyTorch, 7),
    fresh("RoBERTa-base, training step, bf16", "step-roberta bf16", PyTorch, 5),
    fresh("ModernBERT-base, forward of 8 × 128 tokens, f32", "forward-modernbert f32", PyTorch, 7),
    fresh("ModernBERT-base, forward of 8 × 128 tokens, bf16", "forward-modernbert bf16", PyTorch, 7),
    fresh("ModernBERT-base, training step, f32", "step-modernbert f32", PyTorch, 5),
    fresh("ModernBERT-base, training step, bf16", "step-modernbert bf16", PyTorch, 5),
    fresh("ModernBERT-base, forward of 1 × 2,048 tokens, f32", "forward2048-modernbert f32", PyTorch, 5),
    fresh("ModernBERT-base, forward of 1 × 2,048 tokens, bf16", "forward2048-modernbert bf16", PyTorch, 5),
    fresh("ModernBERT-base, step of 1 × 2,048 tokens, bf16", "step2048-modernbert bf16", PyTorch, 5),
    real("predicting 2,000 reviews, bf16", "predict bf16", PyTorch, "predict bf16", 3),
    real("predicting 2,000 reviews, bf16", "predict bf16", OpenVino, "predict bf16", 3),
    real("predicting 2,000 reviews, int8, theirs bf16", "predict int8", PyTorch, "predict bf16", 3),
    real("predicting 2,000 reviews, int8", "predict int8", OpenVino, "predict int8", 3),
    real("epoch over 2,000 reviews, bf16", "epoch bf16", PyTorch, "epoch bf16", 2),
    real("epoch over 2,000 reviews, bf16, theirs f32 and shuffled", "epoch bf16", PyTorch, "shuffled f32", 1),
];

/// Batches that fill a graphics card, measured on cards alone.
const LARGE: [Measure; 5] = [
    fresh("forward of 64 × 128 tokens, f32", "forward64 f32", PyTorch, 9),
    fresh("forward of 64 × 128 tokens, bf16", "forward64 bf16", PyTorch, 9),
    fresh("training step of 64 × 128 tokens, f32", "step64 f32", PyTorch, 9),
    fresh("training step of 64 × 128 tokens, bf16", "step64 bf16", PyTorch, 9),
    fresh("the same of 64 × 128 tokens under LoRA, bf16; theirs with peft", "lora64 bf16", PyTorch, 9),
];

impl Measure {
    /// Whether it is measured with fewer instructions than the processor has: onnxruntime takes all that it finds, and bf16
    /// needs the newest.
    fn is_for_fewer_instructions(&self) -> bool {
        self.peer != OnnxRuntime && ![self.ours, self.theirs].iter().any(|work| work.ends_with("bf16"))
    }

    /// Whether both sides have it on a graphics card too.
    fn is_for_cards(&self) -> bool {
        self.peer == PyTorch && !self.ours.ends_with("int8")
    }
}

/// The same work on both sides, on a base model with fresh weights.
const fn fresh(name: &'static str, work: &'static str, peer: Peer, rounds: usize) -> Measure {
    Measure { name, ours: work, peer, theirs: work, rounds, real: false }
}

/// On a real model and real reviews.
const fn real(name: &'static str, ours: &'static str, peer: Peer, theirs: &'static str, rounds: usize) -> Measure {
    Measure { name, ours, peer, theirs, rounds, real: true }
}

/// Peak memory after some work, in processes that do nothing else: its name, the work, and whether it needs the assets.
const MEMORY: [(&str, &str, bool); 3] = [
    ("peak memory of a training step of 8 × 128 tokens, f32", "step f32", false),
    ("peak memory of the same under LoRA, f32", "lora f32", false),
    ("peak memory of loading a model and one text of 20 tokens, f32", "load f32", true),
];

/// The peers' packages; the first file's are also those of `cargo xtask ci clients`.
const REQUIREMENTS: [&str; 2] =
    ["crates/kiln-train/benches/peers/requirements.txt", "crates/kiln-train/benches/peers/openvino.txt"];

/// A side's seconds, or MB, one a round.
type Samples = Vec<f64>;

/// What was measured of one comparison.
struct Measured {
    name: &'static str,
    peer: &'static str,
    unit: &'static str,
    ours: Samples,
    theirs: Samples,
}

pub fn run(args: &Args) -> Result<()> {
    if let Some(Part::Serve(args)) = &args.part {
        return serve::run(args);
    }
    if args.profile {
        let [profile] = build(["profile"], None)?;
        eprint!("{}", table(&profile, args)?);
        return Ok(());
    }
    let folder = workspace::metadata()?.target_directory.into_std_path_buf();
    let [worker, products] = build(["worker", "products"], args.card)?;
    let cache = folder.join("peers/onnx");
    let ours = || Worker::start(Command::new(&worker), args, &cache);
    let python = if args.peers { Some(python::environment(&folder.join("peers"), &REQUIREMENTS)?) } else { None };
    let theirs = |peer: Peer| {
        let Some(python) = &python else { return Ok(None) };
        let mut command = Command::new(python);
        command.arg(peer.script());
        Worker::start(command, args, &cache).map(Some)
    };

    let wanted = |name: &str, real: bool| {
        (!real || args.assets.is_some())
            && (args.only.is_empty() || args.only.iter().any(|only| name.contains(only.as_str())))
    };
    let mut all = Vec::new();
    let measures: Vec<Measure> = match (args.card, args.instructions) {
        (Some(_), _) => MEASURES.into_iter().filter(Measure::is_for_cards).chain(LARGE).collect(),
        (_, Some(_)) => MEASURES.into_iter().filter(Measure::is_for_fewer_instructions).collect(),
        (None, None) => MEASURES.to_vec(),
    };
    for Measure { name, ours: our_work, peer, theirs: their_work, rounds, real } in measures {
        if !wanted(name, real) {
            continue;
        }
        let (mut ours, mut theirs) = (ours()?, theirs(peer)?);
        let mut measured = Measured { name, peer: peer.name(), unit: "s", ours: vec![], theirs: vec![] };
        // The first round warms caches and allocators up; a long one has time to do so itself.
        for round in 0..rounds + usize::from(!real) {
            let keep = real || round > 0;
            measured.ours.extend(Some(ours.ask(our_work)?).filter(|_| keep));
            if let Some(theirs) = &mut theirs {
                measured.theirs.extend(Some(theirs.ask(their_work)?).filter(|_| keep));
            }
        }
        eprintln!("{}", report::line(&measured));
        all.push(measured);
    }
    for (name, work, real) in MEMORY {
        if !wanted(name, real) || args.card.is_some() || args.instructions.is_some() {
            continue;
        }
        let mut measured = Measured { name, peer: PyTorch.name(), unit: "MB", ours: vec![], theirs: vec![] };
        measured.ours.push(peak_memory(ours()?, work)?);
        if let Some(theirs) = theirs(PyTorch)? {
            measured.theirs.push(peak_memory(theirs, work)?);
        }
        eprintln!("{}", report::line(&measured));
        all.push(measured);
    }
    if args.card.is_some() {
        return Ok(());
    }
    let products = table(&products, args)?;
    eprint!("{products}");
    let written = report::write(&folder.join("bench"), &all, &products, args.threads)?;
    eprintln!("{}", written.display());
    match args.keep {
        true => {
            let figures = format!("{}\n{products}", report::figures(&all, args.threads));
            let file = args.instructions.map_or(FIGURES.to_owned(), Instructions::figures);
            figures::keep(&workspace::root().join("crates/kiln-kernels"), &file, &figures)
        }
        false => Ok(()),
    }
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
    fn start(mut command: Command, args: &Args, cache: &Path) -> Result<Self> {
        let threads = args.threads.to_string();
        command.envs(["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "KILN_BENCH_THREADS"].map(|name| (name, &threads)));
        command.env("KILN_BENCH_CACHE", cache);
        if let Some(instructions) = args.instructions {
            instructions.limit(&mut command);
        }
        if let Some(card) = args.card {
            command.env("KILN_BENCH_BACKEND", card.name());
        }
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
fn peak_memory(mut worker: Worker, work: &str) -> Result<f64> {
    for _ in 0..3 {
        worker.ask(work)?;
    }
    worker.ask("memory f32")
}

/// The programs that measure ours.
fn build<const N: usize>(names: [&str; N], card: Option<Card>) -> Result<[PathBuf; N]> {
    let mut build = cargo(["build", "--workspace", "--exclude=xtask", "--release"]);
    build.args(card.map(|card| format!("--features=kiln-backend/{}", card.name())));
    build.args(names.map(|name| format!("--bench={name}")));
    let programs = workspace::programs(build)?;
    let find = |name| {
        let program = programs.iter().find(|program| program.name == name);
        program.map(|program| program.path.clone()).with_context(|| format!("the build has made no {name}"))
    };
    let found: Vec<PathBuf> = names.into_iter().map(find).collect::<Result<_>>()?;
    Ok(found.try_into().expect("a program for each name"))
}

/// The table that a program prints.
fn table(program: &Path, args: &Args) -> Result<String> {
    let mut command = Command::new(program);
    if let Some(instructions) = args.instructions {
        instructions.limit(&mut command);
    }
    let output = command.env("RAYON_NUM_THREADS", args.threads.to_string()).output()?;
    anyhow::ensure!(output.status.success(), "{} failed: {}", program.display(), output.status);
    String::from_utf8(output.stdout).context("a table is text")
}
