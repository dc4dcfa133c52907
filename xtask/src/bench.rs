//! `cargo xtask bench`: the same work by Kiln and optionally by PyTorch, onnxruntime and OpenVINO. Each side has its own
//! process, and the sides alternate.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::figures::{self, FIGURES};
use crate::python;
use crate::workspace::{self, cargo};

mod measures;
mod report;
mod serve;

use measures::Peer::{self, PyTorch};
use measures::{LARGE, MEASURES, MEMORY, Measure};
pub use report::median;

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
    /// Folder with `models` and `data`; without it, measures on real reviews are left out
    #[arg(long)]
    assets: Option<PathBuf>,
    /// Only measures whose name contains this; may be repeated
    #[arg(long)]
    only: Vec<String>,
    /// Write the figures into the README of `kiln-kernels`
    #[arg(long)]
    keep: bool,
    /// Measure on a GPU; PyTorch needs one from NVIDIA
    #[arg(long, conflicts_with_all = ["keep", "profile"])]
    card: Option<Card>,
    /// Limit both sides to these processor instructions
    #[arg(long, conflicts_with_all = ["card", "profile"])]
    instructions: Option<Instructions>,
    /// Only measure the time of each operation in a forward pass
    #[arg(long)]
    profile: bool,
}

/// A GPU backend. Its feature has the same name.
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

/// Common instruction sets, for measures on a processor that has more.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Instructions {
    Avx2,
    /// AVX2 with dot products of bytes.
    Avx2Vnni,
    Avx512,
}

impl Instructions {
    /// The names in our workers, in PyTorch, and in oneDNN, which PyTorch and OpenVINO use.
    fn names(self) -> [&'static str; 3] {
        match self {
            Self::Avx2 => ["avx2", "avx2", "AVX2"],
            Self::Avx2Vnni => ["avx2-vnni", "avx2", "AVX2_VNNI"],
            Self::Avx512 => ["avx512", "avx512", "AVX512_CORE"],
        }
    }

    /// Limits a process to these instructions.
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

/// The packages of the peers. `cargo xtask ci clients` also uses those of the first file.
const REQUIREMENTS: [&str; 2] =
    ["crates/kiln-train/benches/peers/requirements.txt", "crates/kiln-train/benches/peers/openvino.txt"];

/// Seconds or MB of one side, one per round.
type Samples = Vec<f64>;

/// The measurements of one comparison.
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
    let python = if args.peers { Some(python::environment(&folder.join("peers"), &REQUIREMENTS)?) } else { None };
    let sides = Sides { args, worker, python, cache: folder.join("peers/onnx") };
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
    for measure in measures.into_iter().filter(|measure| wanted(measure.name, measure.real)) {
        let measured = sides.compare(measure)?;
        eprintln!("{}", report::line(&measured));
        all.push(measured);
    }
    let has_memory = args.card.is_none() && args.instructions.is_none();
    for (name, work, _) in MEMORY.into_iter().filter(|(name, _, real)| has_memory && wanted(name, *real)) {
        let measured = sides.compare_memory(name, work)?;
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

/// The processes of both sides.
struct Sides<'a> {
    args: &'a Args,
    worker: PathBuf,
    /// Python with the peers' packages; `None` if they are not measured.
    python: Option<PathBuf>,
    /// Cache folder of the peers' models.
    cache: PathBuf,
}

impl Sides<'_> {
    fn ours(&self) -> Result<Worker> {
        Worker::start(Command::new(&self.worker), self.args, &self.cache)
    }

    fn theirs(&self, peer: Peer) -> Result<Option<Worker>> {
        let Some(python) = &self.python else { return Ok(None) };
        let mut command = Command::new(python);
        command.arg(peer.script());
        Worker::start(command, self.args, &self.cache).map(Some)
    }

    /// Lets both sides work in turn. The first round of short work only warms up caches and allocators.
    fn compare(&self, measure: Measure) -> Result<Measured> {
        let Measure { name, ours: our_work, peer, theirs: their_work, rounds, real } = measure;
        let (mut ours, mut theirs) = (self.ours()?, self.theirs(peer)?);
        let mut measured = Measured { name, peer: peer.name(), unit: "s", ours: vec![], theirs: vec![] };
        for round in 0..rounds + usize::from(!real) {
            let keep = real || round > 0;
            measured.ours.extend(Some(ours.ask(our_work)?).filter(|_| keep));
            if let Some(theirs) = &mut theirs {
                measured.theirs.extend(Some(theirs.ask(their_work)?).filter(|_| keep));
            }
        }
        Ok(measured)
    }

    /// Measures the peak memory of both sides.
    fn compare_memory(&self, name: &'static str, work: &str) -> Result<Measured> {
        let mut measured = Measured { name, peer: PyTorch.name(), unit: "MB", ours: vec![], theirs: vec![] };
        measured.ours.push(peak_memory(self.ours()?, work)?);
        if let Some(theirs) = self.theirs(PyTorch)? {
            measured.theirs.push(peak_memory(theirs, work)?);
        }
        Ok(measured)
    }
}

/// A process that reads one request per line and answers it.
struct Worker {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// A pause before each request, longer than threads spin after their work.
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
        // The worker has no state to save, and may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Peak memory of a process in MB, after three runs of the work.
fn peak_memory(mut worker: Worker, work: &str) -> Result<f64> {
    for _ in 0..3 {
        worker.ask(work)?;
    }
    worker.ask("memory f32")
}

/// Builds the programs that measure Kiln.
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

/// Runs a program and returns the table that it prints.
fn table(program: &Path, args: &Args) -> Result<String> {
    let mut command = Command::new(program);
    if let Some(instructions) = args.instructions {
        instructions.limit(&mut command);
    }
    let output = command.env("RAYON_NUM_THREADS", args.threads.to_string()).output()?;
    anyhow::ensure!(output.status.success(), "{} failed: {}", program.display(), output.status);
    String::from_utf8(output.stdout).context("a table is text")
}
