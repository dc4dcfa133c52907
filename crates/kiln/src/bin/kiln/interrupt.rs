//! Ctrl-C, SIGTERM and SIGHUP: a training is saved and stops, everything else ends at once.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::console::log;

/// The number of SIGINT, which Ctrl-C sends, on every system.
const SIGINT: i32 = 2;

/// The first signal that was received; 0 for none.
static RECEIVED: AtomicI32 = AtomicI32::new(0);
/// Whether a training polls for signals after each step.
static ASKED: AtomicBool = AtomicBool::new(false);
/// The message of a signal that ends the process at once.
static LEAVING: Mutex<Option<&str>> = Mutex::new(None);

/// Installs the signal handlers. The first signal makes a training save and stop after its step, and a later Ctrl-C ends
/// the process. If nothing has called [`unless_interrupted`] yet, the first signal ends the process.
pub fn watch_signals() -> anyhow::Result<()> {
    static WATCHED: AtomicBool = AtomicBool::new(false);
    if WATCHED.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    watch()
}

#[cfg(unix)]
fn watch() -> anyhow::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGTERM};
    let mut watched = vec![SIGINT, SIGTERM];
    if !ignores(SIGHUP) {
        watched.push(SIGHUP);
    }
    let mut signals = signal_hook::iterator::Signals::new(watched)?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || signals.forever().for_each(receive))?;
    Ok(())
}

#[cfg(not(unix))]
fn watch() -> anyhow::Result<()> {
    Ok(ctrlc::set_handler(|| receive(SIGINT))?)
}

/// Whether the process was started with a signal ignored, as `nohup` does with SIGHUP. If the system does not report it,
/// the answer is yes.
#[cfg(unix)]
fn ignores(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask >> (signal - 1) & 1 == 1)
}

fn receive(signal: i32) {
    let is_first = RECEIVED.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_ok();
    if let Some(text) = *leaving() {
        log(format_args!("interrupted; {text}"));
        leave(signal);
    }
    if !ASKED.load(Ordering::SeqCst) {
        log("interrupted");
        leave(signal);
    }
    if is_first {
        log("finishing this step, then saving; Ctrl-C ends at once");
    } else if signal == SIGINT {
        // A closing terminal may send SIGHUP twice, so only Ctrl-C ends the process here.
        leave(signal);
    }
}

fn leave(signal: i32) -> ! {
    std::process::exit(i32::from(exit_code_of(signal)))
}

/// While the returned guard exists, a signal ends the process at once, with `text` as its message.
pub fn leave_when_interrupted(text: &'static str) -> anyhow::Result<Leaving> {
    watch_signals()?;
    *leaving() = Some(text);
    Ok(Leaving)
}

/// The guard of [`leave_when_interrupted`].
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

/// Breaks after a signal was received.
pub fn unless_interrupted() -> ControlFlow<()> {
    ASKED.store(true, Ordering::SeqCst);
    match RECEIVED.load(Ordering::SeqCst) {
        0 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    }
}

/// The exit code of an interrupted process: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP.
pub fn exit_code() -> u8 {
    match RECEIVED.load(Ordering::SeqCst) {
        0 => exit_code_of(SIGINT),
        signal => exit_code_of(signal),
    }
}

/// The exit code as a shell reports it.
fn exit_code_of(signal: i32) -> u8 {
    128 + signal as u8
}
