//! `cargo xtask bench serve`: a running `kiln serve` under load and faults, and with `--peers` also litserve with int8 in
//! onnxruntime and in OpenVINO. The client runs on the same machine for every side.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::bench::report;
use crate::figures::{self, FIGURES};
use crate::python;
use crate::workspace::{self, cargo};

mod client;
mod faults;
mod side;

use client::{Connection, Load, Outcome, get, post};
use side::{Side, kiln};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also measure litserve with onnxruntime and with OpenVINO, installed from Python's registry under `target/serve-peers`
    #[arg(long)]
    peers: bool,
    /// Threads of each side
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Folder with `models` and `data`
    #[arg(long, default_value = "../shared")]
    assets: PathBuf,
    /// Seconds of each load
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Rounds of each signal
    #[arg(long, default_value_t = 50)]
    rounds: usize,
    /// Requests after which memory is compared with the memory after 1,000
    #[arg(long, default_value_t = 100_000)]
    requests: usize,
    /// Write the figures into the README of `kiln-serve`
    #[arg(long)]
    keep: bool,
}

/// The inputs of the measurements: the `kiln` program, a model, and requests with one real review each.
struct Bench<'a> {
    args: &'a Args,
    program: PathBuf,
    model: PathBuf,
    requests: Vec<Vec<u8>>,
    report: String,
}

const CONNECTIONS: usize = 32;

pub fn run(args: &Args) -> Result<()> {
    let target = workspace::metadata()?.target_directory.into_std_path_buf();
    let folder = target.join("bench/serve");
    std::fs::create_dir_all(&folder)?;
    let built = workspace::programs(cargo(["build", "--workspace", "--exclude=xtask", "--bins", "--release"]))?;
    let program = built.into_iter().find(|program| program.name == "kiln").context("the build has made no kiln")?.path;
    let model = classifier(&program, args, &folder)?;
    let requests = reviews(args)?.into_iter().map(|text| post("/", &serde_json::json!({ "inputs": text }).to_string()));
    let mut bench = Bench { args, program, model, requests: requests.collect(), report: String::new() };
    bench.line(format_args!("{}, {} threads a side.\n", report::machine(), args.threads));
    bench.line(format_args!("| figure | value |\n|---|---|"));
    let mut slowest = f64::INFINITY;
    if args.peers {
        let requirements = "crates/kiln-serve/benches/peers/requirements.txt";
        let python = python::environment(&target.join("serve-peers"), &[requirements])?;
        for engine in ["onnxruntime", "openvino"] {
            slowest = bench.peer(engine, &python, &folder)?.min(slowest);
        }
    }
    for precision in ["int8", "bf16"] {
        bench.throughput(precision, slowest)?;
    }
    bench.overhead()?;
    bench.overload()?;
    bench.memory()?;
    bench.faults()?;
    let path = folder.join("report.md");
    std::fs::write(&path, &bench.report)?;
    eprintln!("{}", path.display());
    match args.keep {
        true => figures::keep(&workspace::root().join("crates/kiln-serve"), FIGURES, &bench.report),
        false => Ok(()),
    }
}

/// The model folder of a review classifier on the small multilingual encoder. It is trained once.
fn classifier(program: &Path, args: &Args, folder: &Path) -> Result<PathBuf> {
    let model = folder.join("run/model");
    if model.join("config.json").exists() {
        return Ok(model);
    }
    let assets = std::path::absolute(&args.assets)?;
    let (encoder, data) = (assets.join("models/multilingual-e5-small-zh"), assets.join("data/chnsenticorp"));
    let recipe = format!(
        "task = \"sequence-classification\"\n[model]\nsource = \"dir:{}\"\nencoder = \"frozen\"\npooling = \"mean\"\n\
         [data]\ntrain = \"{}\"\nvalidation = \"{}\"\nformat = \"tsv\"\nheader = false\ntext = 0\nlabel = 1\n\
         [train]\nepochs = 3\nprecision = \"bf16\"\n",
        encoder.display(),
        data.join("dev.tsv").display(),
        data.join("dev.tsv").display(),
    );
    let path = folder.join("recipe.toml");
    std::fs::write(&path, recipe)?;
    let run = folder.join("run");
    workspace::run(Command::new(program).arg("train").arg("--recipe").arg(path).arg("--out").arg(run))?;
    Ok(model)
}

/// Real review texts in the order of the file.
fn reviews(args: &Args) -> Result<Vec<String>> {
    let path = args.assets.join("data/chnsenticorp/dev.tsv");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().filter_map(|line| Some(line.split_once('\t')?.0.to_owned())).collect())
}

impl Bench<'_> {
    /// Adds a line to the report and prints it.
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        eprintln!("{line}");
        writeln!(self.report, "{line}").expect("a string takes any text");
    }

    fn start(&self, precision: &str) -> Result<Side> {
        Side::start(&mut kiln(&self.program, &self.model, precision), self.args.threads)
    }

    fn load(&self, rate: Option<f64>) -> Load {
        let connections = if rate.is_some() { 4 * CONNECTIONS } else { CONNECTIONS };
        Load { connections, rate, time: Duration::from_secs(self.args.seconds), count: usize::MAX }
    }

    /// The outcome of a load at saturation, after a warm-up.
    fn saturation(&self, side: &Side, requests: &[Vec<u8>]) -> Outcome {
        Load { time: Duration::from_secs(2), ..self.load(None) }.run(side.address, requests);
        self.load(None).run(side.address, requests)
    }

    /// Measures a peer, and returns its texts per second.
    fn peer(&mut self, engine: &str, python: &Path, folder: &Path) -> Result<f64> {
        let script = workspace::root().join("crates/kiln-serve/benches/peers/litserve_peer.py");
        let assets = std::path::absolute(&self.args.assets)?;
        let (encoder, texts) =
            (assets.join("models/multilingual-e5-small-zh"), assets.join("data/chnsenticorp/train.tsv"));
        let mut command = Command::new(python);
        command.arg(script).arg(engine).args([encoder.as_path(), &texts, folder]).arg(self.args.threads.to_string());
        let side = Side::start(&mut command, self.args.threads)?;
        let requests: Vec<Vec<u8>> = self
            .requests
            .iter()
            .map(|request| String::from_utf8_lossy(request).replacen("POST / ", "POST /predict ", 1).into_bytes())
            .collect();
        let outcome = self.saturation(&side, &requests);
        let speed = outcome.per_second();
        self.line(format_args!("| litserve + {engine} int8: texts per second at saturation | {speed:.0} |"));
        let half = self.load(Some(speed / 2.0)).run(side.address, &requests);
        let (p50, p99) = (half.percentile(0.5), half.percentile(0.99));
        self.line(format_args!("| the same: p50 and p99 at half of that | {p50:.1} ms, {p99:.1} ms |"));
        Ok(speed)
    }

    fn throughput(&mut self, precision: &str, slowest: f64) -> Result<()> {
        let side = self.start(precision)?;
        let speed = self.saturation(&side, &self.requests).per_second();
        self.line(format_args!("| {precision}: texts per second at saturation | {speed:.0} |"));
        let rate = slowest.min(speed) / 2.0;
        let half = self.load(Some(rate)).run(side.address, &self.requests);
        let (p50, p99) = (half.percentile(0.5), half.percentile(0.99));
        self.line(format_args!(
            "| {precision}: p50 and p99 at {rate:.0} texts per second | {p50:.1} ms, {p99:.1} ms |"
        ));
        let start = side.start_time.as_secs_f64() * 1e3;
        self.line(format_args!("| {precision}: process start to first 200 | {start:.0} ms |"));
        Ok(())
    }

    /// Measures the time of HTTP without the model, with sequential requests of one text of 20 tokens.
    fn overhead(&mut self) -> Result<()> {
        let side = self.start("int8")?;
        let request =
            post("/", &serde_json::json!({ "inputs": "房间很干净，服务也不错，下次还会再来住的" }).to_string());
        let load = Load { connections: 1, count: 500, ..self.load(None) };
        load.run(side.address, std::slice::from_ref(&request));
        let before = side.metric("kiln_compute_seconds_total ")?;
        let outcome = load.run(side.address, &[request]);
        let model = (side.metric("kiln_compute_seconds_total ")? - before) / outcome.seconds.len() as f64;
        let mean = outcome.seconds.iter().sum::<f64>() / outcome.seconds.len() as f64;
        let (model, beside) = (model * 1e3, (mean - model) * 1e3);
        self.line(format_args!("| one short text: the model, and HTTP beside it | {model:.2} ms, {beside:.2} ms |"));
        Ok(())
    }

    /// Measures health probes beside many connections that ask for twice the sustainable load.
    fn overload(&mut self) -> Result<()> {
        let side = self.start("int8")?;
        let speed = self.saturation(&side, &self.requests).per_second();
        let connections = 8 * CONNECTIONS;
        let load = Load { connections, ..self.load(Some(2.0 * speed)) };
        let probe = Load { connections: 1, ..self.load(Some(100.0)) };
        let (outcome, probes) = std::thread::scope(|scope| {
            let probes = scope.spawn(|| probe.run(side.address, &[get("/health")]));
            (load.run(side.address, &self.requests), probes.join().expect("it does not panic"))
        });
        let (p50, p99, wrong) = (probes.percentile(0.5), probes.percentile(0.99), outcome.wrong + probes.wrong);
        let beside = format!("`/health` beside {connections} connections that ask for twice the sustainable load");
        self.line(format_args!("| {beside}: p50 and p99 | {p50:.1} ms, {p99:.1} ms |"));
        let (done, refused) = (outcome.seconds.len(), outcome.refused);
        self.line(format_args!("| meanwhile: answers 200, 429, others | {done}, {refused}, {wrong} |"));
        Ok(())
    }

    fn memory(&mut self) -> Result<()> {
        let side = self.start("int8")?;
        let mut requests: Vec<Vec<u8>> = self.requests.iter().take(300).cloned().collect();
        for at in 0..100 {
            requests.push(post("/embed", &serde_json::json!({ "inputs": ["房间", "干净"] }).to_string()));
            requests.push(get(["/health", "/info", "/metrics", "/"][at % 4]));
            requests.push(post("/predict", "{\"inputs\": "));
            requests.push(post("/tokenize", &serde_json::json!({ "inputs": "房间很干净" }).to_string()));
        }
        let run =
            |count| Load { count, time: Duration::from_secs(3_600), ..self.load(None) }.run(side.address, &requests);
        run(1_000);
        let before = side.memory()?;
        run(self.args.requests - 1_000);
        let after = side.memory()?;
        let (count, growth) = (self.args.requests, (after / before - 1.0) * 100.0);
        self.line(format_args!(
            "| memory after 1,000 and {count} mixed requests | {before:.0} MB, {after:.0} MB ({growth:+.1} %) |"
        ));
        Ok(())
    }

    fn faults(&mut self) -> Result<()> {
        let requests: Vec<Vec<u8>> = self.requests.iter().take(40).cloned().collect();
        for signal in ["KILL", "TERM", "HUP"] {
            let found = faults::rounds(&self.program, &self.model, &requests, signal, self.args.rounds)?;
            let faults::Faults { rounds, answers, wrong, lost } = found;
            let lost = if signal == "KILL" { String::new() } else { format!(", {lost} accepted requests lost") };
            self.line(format_args!(
                "| {rounds} rounds of SIG{signal} under load | {answers} answers, {wrong} wrong{lost} |"
            ));
        }
        let side = self.start("int8")?;
        let (p99, left) = faults::idle_and_vanishing(&side, &self.requests[0])?;
        self.line(format_args!(
            "| `/health` p99 beside 1,000 idle connections and 500 clients that vanish | {p99:.1} ms |"
        ));
        self.line(format_args!("| connections that are open afterwards, this one included | {left:.0} |"));
        let alive = Connection::new(side.address).send(&self.requests[0])?.0;
        anyhow::ensure!(alive == 200, "the server answers {alive} afterwards");
        Ok(())
    }
}
