//! A server that is measured, Kiln's or a peer's, in its own process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::client::{Connection, get};

pub struct Side {
    process: Child,
    pub address: SocketAddr,
    /// Time from the start of the process to the first response with status 200.
    pub start_time: Duration,
}

impl Side {
    /// Starts a program that prints its address, `http://host:port`, as its first line.
    pub fn start(command: &mut Command, threads: usize) -> Result<Self> {
        let start = Instant::now();
        for name in ["RAYON_NUM_THREADS", "OMP_NUM_THREADS"] {
            command.env(name, threads.to_string());
        }
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(command, 0);
        let process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut process = process.with_context(|| format!("cannot start {:?}", command.get_program()))?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("its output is piped")?).read_line(&mut line)?;
        let Some(address) = line.trim().strip_prefix("http://").and_then(|address| address.parse().ok()) else {
            let _ = process.kill();
            bail!("found {line:?}, expected the address of {:?}", command.get_program());
        };
        let mut side = Self { process, address, start_time: Duration::ZERO };
        side.wait_until_ready(start)?;
        Ok(side)
    }

    fn wait_until_ready(&mut self, start: Instant) -> Result<()> {
        let request = get("/health");
        while !matches!(Connection::new(self.address).send(&request), Ok((200, _))) {
            ensure!(start.elapsed() < Duration::from_secs(120), "a server does not answer");
            ensure!(self.process.try_wait()?.is_none(), "a server ended before it answered");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.start_time = start.elapsed();
        Ok(())
    }

    /// Resident memory in megabytes.
    pub fn memory(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("there is no VmRSS")?;
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes / 1e3)
    }

    /// The sum of a counter's values in `/metrics`.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let (_, body) = Connection::new(self.address).send(&get("/metrics"))?;
        let text = String::from_utf8(body)?;
        Ok(text.lines().filter_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok()).sum())
    }

    pub fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill").args(["-s", name, &self.process.id().to_string()]).status()?;
        ensure!(status.success(), "kill -s {name} failed");
        Ok(())
    }

    /// Waits until the process ends, and returns its exit code.
    pub fn end(&mut self) -> Result<Option<i32>> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status.code());
            }
            ensure!(start.elapsed() < Duration::from_secs(60), "a server does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // The processes have no state to save, and may have ended already. A peer's child processes would outlive it and
        // slow down the other measurements, so the whole group is killed.
        let group = format!("-{}", self.process.id());
        let _ = Command::new("kill").args(["-s", "KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.process.wait();
    }
}

/// `kiln serve` with a model.
pub fn kiln(program: &Path, model: &Path, precision: &str) -> Command {
    let mut command = Command::new(program);
    let model = format!("reviews={}", model.display());
    command.args(["serve", &model, "--port", "0", "--precision", precision, "--no-request-log", "--truncate"]);
    command
}
