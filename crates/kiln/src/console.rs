//! What a user sees: results on stdout, everything else on stderr; bars on a terminal, plain lines elsewhere.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is where Kiln prints")]

use std::fmt;
use std::io::{IsTerminal, stderr};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// A result, for people.
pub fn result(text: impl fmt::Display) {
    println!("{text}");
}

/// A result, for programs.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}

/// A line of the log.
pub fn log(text: impl fmt::Display) {
    eprintln!("{text}");
}

/// Something that a user should not overlook.
pub fn warn(text: impl fmt::Display) {
    eprintln!("WARNING: {text}");
}

/// A prompt, without a line end.
pub fn ask(prompt: &str) {
    eprint!("{prompt}");
}

/// A stage of the pipeline, the crate that does it, and what came of it.
pub fn stage(name: &str, by: &str, text: impl fmt::Display) {
    for (line, text) in text.to_string().lines().enumerate() {
        let (name, by) = if line == 0 { (name, by) } else { ("", "") };
        eprintln!("{name:<9} {by:<14} {text}");
    }
}

/// An error with its causes, the outermost first.
pub fn error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

/// How far something is: a bar with the time left, or a line at each tenth.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    name: &'static str,
    total: usize,
    tenths: usize,
}

impl Progress {
    pub fn new(name: &'static str, total: usize) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix:<9} {wide_bar} {pos}/{len} {msg} ETA {eta}")
                .expect("the template is well formed");
            ProgressBar::new(total as u64).with_style(style).with_prefix(name)
        });
        Self { bar, name, total, tenths: 0 }
    }

    pub fn set(&mut self, done: usize, message: impl FnOnce() -> String) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(message());
                bar.set_position(done as u64);
            }
            None => {
                let tenths = done * 10 / self.total.max(1);
                if tenths > self.tenths {
                    self.tenths = tenths;
                    log(format_args!("{:<9} {done}/{} {}", self.name, self.total, message()));
                }
            }
        }
    }

    /// A line of the log that leaves the bar whole.
    pub fn log(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| log(text)),
            None => log(text),
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The user pressed Ctrl-C, and what was to be saved is saved.
#[derive(Debug)]
pub struct Interrupted(pub String);

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupted; {}", self.0)
    }
}

impl std::error::Error for Interrupted {}

static CTRL_C: AtomicBool = AtomicBool::new(false);
/// What Ctrl-C says as it ends the process, where it does so at once.
static LEAVING: Mutex<Option<&str>> = Mutex::new(None);

/// From here on the first Ctrl-C asks a training to stop after its step, the second ends the process.
pub fn watch_ctrl_c() -> anyhow::Result<()> {
    static WATCHED: AtomicBool = AtomicBool::new(false);
    if WATCHED.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    ctrlc::set_handler(|| {
        if let Some(text) = *leaving() {
            log(format_args!("interrupted; {text}"));
            std::process::exit(130);
        }
        if CTRL_C.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        log("finishing this step, then saving; once more to leave at once");
    })?;
    Ok(())
}

/// For as long as the guard lives, the first Ctrl-C ends the process, and says `text`.
pub fn leave_at_ctrl_c(text: &'static str) -> anyhow::Result<Leaving> {
    watch_ctrl_c()?;
    *leaving() = Some(text);
    Ok(Leaving)
}

/// See [`leave_at_ctrl_c`].
#[derive(Debug)]
pub struct Leaving;

impl Drop for Leaving {
    fn drop(&mut self) {
        *leaving() = None;
    }
}

fn leaving() -> MutexGuard<'static, Option<&'static str>> {
    LEAVING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Break once Ctrl-C was pressed.
pub fn unless_interrupted() -> ControlFlow<()> {
    if CTRL_C.load(Ordering::SeqCst) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
