//! Ctrl-C, SIGTERM and SIGHUP: a training saves and stops, everything else ends at once.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::console::log;

/// The number of SIGINT, which Ctrl-C sends, on every system.
const SIGINT: i32 = 2;

/// The first signal that came; 0 for none.
static RECEIVED: AtomicI32 = AtomicI32::new(0);
/// Whether a training asks from step to step whether it should go on.
static ASKED: AtomicBool = AtomicBool::new(false);
/// The message with which a signal ends the process, where it does so at once.
static LEAVING: Mutex<Option<&str>> = Mutex::new(None);

/// From here on the first signal asks a training to save and stop after its step, and a Ctrl-C after it ends the process.
/// Where nothing asks [`unless_interrupted`] yet, the first one does.
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

/// Whether whoever started the process has it ignore a signal, as `nohup` does to let it outlive its terminal. Where the
/// system gives no answer, it may be so.
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
        // A terminal that closes may send SIGHUP twice, so only Ctrl-C counts as impatience.
        leave(signal);
    }
}

fn leave(signal: i32) -> ! {
    std::process::exit(i32::from(exit_code_of(signal)))
}

/// For as long as the guard lives, a signal ends the process at once, with `text` as its message.
pub fn leave_when_interrupted(text: &'static str) -> anyhow::Result<Leaving> {
    watch_signals()?;
    *leaving() = Some(text);
    Ok(Leaving)
}

/// See [`leave_when_interrupted`].
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

/// Break once a signal came.
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

/// As a shell reports it.
fn exit_code_of(signal: i32) -> u8 {
    128 + signal as u8
}
