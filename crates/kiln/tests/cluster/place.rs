//! A folder with reviews, a small model, and the processes of a cluster.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

/// A test fails if something has not happened by then.
const LIMIT: Duration = Duration::from_secs(120);
const PERIOD: Duration = Duration::from_millis(2);

/// A folder for inputs and outputs.
pub struct Place {
    folder: tempfile::TempDir,
}

/// A process that is killed when the test ends.
pub struct Process(Child);

/// The result of a command.
pub struct Ended {
    pub code: Option<i32>,
    pub log: String,
}

/// A model, trained once for all tests.
pub fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| trained("model", 1))
}

/// Another model of the same size.
pub fn other_model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| trained("other-model", 2))
}

fn trained(name: &str, seed: usize) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("it is writable");
    let rows = reviews();
    let line = |(text, label): &(String, String)| format!("{text}\t{label}\n");
    fs::write(folder.join("train.tsv"), rows[..64].iter().map(line).collect::<String>()).expect("a small file");
    let recipe = format!(
        "task = \"sequence-classification\"\nmodel.source = \"sample\"\nmodel.size = \"tiny\"\n[data]\ntrain = \
         \"train.tsv\"\nvalidation = \"train.tsv\"\n[train]\nepochs = 1\nmax_length = 64\nseed = {seed}\n"
    );
    fs::write(folder.join("recipe.toml"), recipe).expect("a small file");
    let mut train = kiln();
    train.args(["train", "--recipe"]).arg(folder.join("recipe.toml")).arg("--out").arg(folder.join("run"));
    let Ended { code, log } = end(train);
    assert_eq!(code, Some(0), "{log}");
    folder.join("run/model")
}

/// The sample's reviews with their labels.
pub fn reviews() -> Vec<(String, String)> {
    let reviews = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kiln-sample/files/train.tsv");
    let reviews = fs::read_to_string(reviews).expect("the sample's data");
    let row = |line: &str| {
        let mut columns = line.split('\t');
        (columns.next().unwrap_or_default().to_owned(), columns.next().unwrap_or_default().to_owned())
    };
    reviews.lines().skip(1).map(row).collect()
}

impl Place {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `kiln cluster run` from `in` to a folder, with further options.
    pub fn run(&self, out: &str, options: &[&str]) -> Ended {
        end(self.command(out, options))
    }

    /// The same with an environment.
    pub fn run_with(&self, out: &str, options: &[&str], environment: &[(String, String)]) -> Ended {
        let mut command = self.command(out, options);
        command.envs(environment.iter().cloned());
        end(command)
    }

    /// The same as [`Self::run`], but the command must succeed.
    pub fn ran(&self, out: &str, options: &[&str]) -> Written {
        let Ended { code, log } = self.run(out, options);
        assert_eq!(code, Some(0), "{log}");
        Written::read(&self.path(out))
    }

    pub fn start(&self, out: &str, options: &[&str]) -> Process {
        Process::start(self.command(out, options))
    }

    fn command(&self, out: &str, options: &[&str]) -> Command {
        let mut command = kiln();
        command.current_dir(self.folder.path()).args(["cluster", "run", "--model"]).arg(model());
        let is_given = |name: &str| options.contains(&name);
        for (name, value) in
            [("--input", "in"), ("--task", "predict"), ("--rows-per-shard", "200"), ("--patience", "60")]
        {
            if !is_given(name) {
                command.args([name, value]);
            }
        }
        command.args(["--output", out]).args(options);
        command
    }

    /// A scheduler that considers executors lost after three seconds, and its address.
    pub fn scheduler(&self, port: &str) -> (Process, String) {
        let mut command = kiln();
        command.args(["cluster", "scheduler", "--executor-timeout", "3", "--port", port]).stdout(Stdio::piped());
        let mut process = Process::start(command);
        let mut address = String::new();
        let stdout = process.0.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut address).expect("it prints a line");
        assert!(!address.trim().is_empty(), "the scheduler says where it is");
        (process, address.trim().to_owned())
    }

    pub fn executor(&self, scheduler: &str) -> Process {
        self.executor_of(scheduler, model(), &[])
    }

    pub fn executor_of(&self, scheduler: &str, model: &Path, environment: &[(String, String)]) -> Process {
        let mut command = kiln();
        command.args(["cluster", "executor", "--heartbeat", "1", "--scheduler", scheduler, "--model"]).arg(model);
        command.envs(environment.iter().cloned());
        Process::start(command)
    }

    /// Waits until `count` shards of an output have their receipts.
    pub fn wait_for_shards(&self, out: &str, count: usize) {
        let folder = self.path(out).join("_shards");
        wait_until("shards are written", || files(&folder, ".json").len() >= count);
    }

    /// Waits until there is a data file that has no receipt yet, or has just got it.
    pub fn wait_for_data(&self, out: &str, count: usize) {
        let folder = self.path(out);
        wait_until("a shard is written", || files(&folder, ".parquet").len() >= count);
    }
}

/// The files of a folder with this extension, sorted.
pub fn files(folder: &Path, ending: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.ends_with(ending));
    names.sort();
    names
}

/// The output of a job: its manifest and the bytes of its shards.
#[derive(PartialEq)]
pub struct Written {
    pub manifest: Value,
    pub shards: Vec<(String, Vec<u8>)>,
}

impl Written {
    pub fn read(folder: &Path) -> Self {
        let manifest = fs::read(folder.join("manifest.json")).expect("a manifest");
        let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
        let names = files(folder, ".parquet");
        let shards = names.into_iter().map(|name| {
            let bytes = fs::read(folder.join(&name)).expect("it is there");
            (name, bytes)
        });
        Self { shards: shards.collect(), manifest }
    }

    /// The names of the shards, in the order of the rows.
    pub fn names(&self) -> Vec<String> {
        let shards = self.manifest["shards"].as_array().expect("a list");
        shards.iter().map(|shard| shard["file"].as_str().expect("a name").to_owned()).collect()
    }
}

impl Process {
    fn start(mut command: Command) -> Self {
        Self(command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs"))
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.0.id().to_string()]).status();
        assert!(sent.expect("there is kill").success());
    }

    pub fn kill(mut self) {
        self.signal("KILL");
        let _ = self.0.wait();
    }

    /// Whether the process is still running.
    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("it is a child").is_none()
    }

    /// Waits for the end, in bounded time, and returns the result.
    pub fn end(mut self) -> Ended {
        wait_until("the job ends", || self.0.try_wait().expect("it is a child").is_some());
        let mut log = String::new();
        let stderr = self.0.stderr.take().expect("it is piped");
        std::io::Read::read_to_string(&mut BufReader::new(stderr), &mut log).expect("it is text");
        Ended { code: self.0.wait().expect("it has ended").code(), log }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn kiln() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster-cache");
    command.env("KILN_CACHE", cache).env("RAYON_NUM_THREADS", "1").stdin(Stdio::null());
    command
}

pub fn end(mut command: Command) -> Ended {
    let output = command.output().expect("the binary runs");
    let log = [output.stderr, output.stdout].concat();
    Ended { code: output.status.code(), log: String::from_utf8_lossy(&log).into_owned() }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < LIMIT, "waited for long: {what}");
        std::thread::sleep(PERIOD);
    }
}
