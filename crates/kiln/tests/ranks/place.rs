//! A folder with a recipe and its data, and the processes that train in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// Settings of a run that is long enough for a fault to occur during it.
pub const WHOLE: &[&str] = &["train.epochs=4", "train.save_steps=1"];

/// A folder with a recipe whose updates have four batches.
pub struct Place {
    folder: tempfile::TempDir,
}

/// A job of several processes.
pub struct Job(Child);

/// A test fails if a job has not ended, or a file has not appeared, by then.
const LIMIT: Duration = Duration::from_secs(60);
const PERIOD: Duration = Duration::from_millis(1);

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let reviews = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kiln-sample/files/train.tsv");
        let reviews = fs::read_to_string(reviews).expect("the sample's data");
        let rows: Vec<&str> = reviews.lines().skip(1).collect();
        // The last update of an epoch has only two batches.
        for (name, rows) in [("train.tsv", &rows[..104]), ("dev.tsv", &rows[104..120])] {
            fs::write(folder.path().join(name), rows.join("\n")).expect("a small file");
        }
        let recipe = "task = \"sequence-classification\"\nmodel.source = \"sample\"\nmodel.size = \"tiny\"\n\
                      [data]\ntrain = \"train.tsv\"\nvalidation = \"dev.tsv\"\n\
                      [train]\nepochs = 1\nbatch_size = 4\ngradient_accumulation_steps = 4\nmax_length = 24\n";
        fs::write(folder.path().join("recipe.toml"), recipe).expect("a small file");
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The words of a command. Settings that begin with `--` are options.
    pub fn command(&self, command: &str, out: &str, settings: &[&str]) -> Vec<String> {
        let out = self.path(out);
        let recipe = self.path("recipe.toml");
        let words = [env!("CARGO_BIN_EXE_kiln"), command, "--recipe", text(&recipe), "--out", text(&out)];
        let settings = settings.iter().flat_map(|setting| match setting.starts_with("--") {
            true => vec![*setting],
            false => vec!["--set", setting],
        });
        words.into_iter().chain(settings).map(str::to_owned).collect()
    }

    /// The exit code and the log of one process.
    pub fn alone(&self, command: &str, out: &str, settings: &[&str]) -> (Option<i32>, String) {
        let words = self.command(command, out, settings);
        let mut alone = Command::new(&words[0]);
        ended(self.prepared(alone.args(&words[1..])).output().expect("the binary runs"))
    }

    /// The exit code and the log of several processes.
    pub fn together(&self, ranks: usize, command: &str, out: &str, settings: &[&str]) -> (Option<i32>, String) {
        let (ranks, words) = (ranks.to_string(), self.command(command, out, settings));
        let words: Vec<&str> = ["-np", &ranks].into_iter().chain(words.iter().map(String::as_str)).collect();
        self.mpirun(&words)
    }

    pub fn mpirun(&self, arguments: &[&str]) -> (Option<i32>, String) {
        ended(self.launcher(arguments).output().expect("mpirun runs"))
    }

    /// Starts two processes that train with the settings [`WHOLE`], and wait for each other for `timeout` seconds.
    pub fn start(&self, out: &str, timeout: u64) -> Job {
        let words = self.command("train", out, WHOLE);
        let words: Vec<&str> = ["-np", "2"].into_iter().chain(words.iter().map(String::as_str)).collect();
        let mut launcher = self.launcher(&words);
        launcher.env("KILN_MPI_TIMEOUT", timeout.to_string()).stderr(Stdio::piped()).stdout(Stdio::piped());
        Job(launcher.spawn().expect("mpirun runs"))
    }

    fn launcher(&self, arguments: &[&str]) -> Command {
        let mut launcher = Command::new("mpirun");
        // A process bound to one core would share it with all of its threads and with the other processes.
        launcher.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]).args(arguments);
        self.prepared(&mut launcher);
        launcher
    }

    fn prepared<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ranks-cache");
        command.env("KILN_CACHE", cache).env("RAYON_NUM_THREADS", "1");
        command.current_dir(self.folder.path()).stdin(Stdio::null())
    }

    pub fn wait_for(&self, path: &Path) {
        wait_until(&format!("{} is there", path.display()), || path.exists());
    }

    /// Waits until a file is being written in a folder.
    pub fn wait_for_temporary(&self, folder: &Path) {
        let is_finished = |name: &str| name.ends_with(".safetensors");
        wait_until("a checkpoint is being written", || {
            let mut names = fs::read_dir(folder).expect("the folder is there").flatten().map(|entry| entry.file_name());
            names.any(|name| !is_finished(&name.to_string_lossy()))
        });
    }

    /// Sends a signal to the process of a rank.
    pub fn signal(&self, rank: usize, signal: &str) {
        let variable = format!("OMPI_COMM_WORLD_RANK={rank}");
        let is_rank = |process: &u32| {
            let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
        };
        let process = self.processes().into_iter().find(is_rank).expect("the process is running");
        let sent = Command::new("kill").args([&format!("-{signal}"), &process.to_string()]).status();
        assert!(sent.expect("there is kill").success());
    }

    pub fn assert_no_process_is_left(&self) {
        wait_until("no process is left", || self.processes().is_empty());
    }

    /// The processes whose command names this folder, without zombies.
    fn processes(&self) -> Vec<u32> {
        let folder = text(self.folder.path());
        let entries = fs::read_dir("/proc").expect("Linux has it").flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
        let is_ours = |process: &u32| {
            let command = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(folder)
        };
        numbers.filter(is_ours).collect()
    }
}

impl Job {
    /// Waits until all processes have ended, and returns the exit code and the log.
    pub fn end(mut self) -> (Option<i32>, String) {
        wait_until("the job ends", || self.0.try_wait().expect("it is a child").is_some());
        ended(self.0.wait_with_output().expect("it has ended"))
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !is_so() {
        assert!(started.elapsed() < LIMIT, "waited for long: {what}");
        std::thread::sleep(PERIOD);
    }
}

fn ended(output: Output) -> (Option<i32>, String) {
    let log = [output.stderr, output.stdout].concat();
    (output.status.code(), String::from_utf8_lossy(&log).into_owned())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}
