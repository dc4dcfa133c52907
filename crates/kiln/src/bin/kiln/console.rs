//! Output for the user: results on stdout, everything else on stderr; progress bars on a terminal, plain lines elsewhere.
//!
//! A result that cannot be written is an [`OutputError`]. A log line that cannot be written is dropped, because a closed
//! terminal must not end a training.

use std::fmt;
use std::io::{self, IsTerminal, Write, stderr, stdout};
use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// The prefix of every log line; `None` disables the log.
static SPEAKER: Mutex<Option<String>> = Mutex::new(Some(String::new()));

/// Sets the prefix of every following log line; `None` disables the log.
pub fn speak_as(speaker: Option<String>) {
    *SPEAKER.lock().unwrap_or_else(PoisonError::into_inner) = speaker;
}

/// Prints a result for people.
pub fn result(text: impl fmt::Display) -> Result<(), OutputError> {
    let line = format!("{text}\n");
    let mut stdout = stdout().lock();
    stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).map_err(OutputError)
}

/// A number of things, such as `1 row` or `2 rows`.
pub fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// The first characters of a text, for one line of a result.
pub fn beginning(text: &str) -> String {
    const CHARACTERS: usize = 60;
    match text.char_indices().nth(CHARACTERS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Prints a result for programs, as JSON.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(result(serde_json::to_string(value)?)?)
}

/// A result could not be written to standard output.
#[derive(Debug)]
pub struct OutputError(io::Error);

impl OutputError {
    /// Whether the program that reads the results has ended, as `head` does after a few lines.
    pub fn is_closed(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output cannot be written")
    }
}

impl std::error::Error for OutputError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Writes a log line.
pub fn log(text: impl fmt::Display) {
    if let Some(speaker) = &*SPEAKER.lock().unwrap_or_else(PoisonError::into_inner) {
        let _ = stderr().lock().write_all(format!("{speaker}{text}\n").as_bytes());
    }
}

/// Logs a warning.
pub fn warn(text: impl fmt::Display) {
    log(format_args!("WARNING: {text}"));
}

/// Writes a prompt, without a line end.
pub fn ask(prompt: &str) {
    let _ = stderr().lock().write_all(prompt.as_bytes());
}

/// Logs a stage of the pipeline, the crate that does the work, and the result.
pub fn stage(name: &str, by: &str, text: impl fmt::Display) {
    for (line, text) in text.to_string().lines().enumerate() {
        let (name, by) = if line == 0 { (name, by) } else { ("", "") };
        log(format_args!("{name:<9} {by:<14} {text}"));
    }
}

/// Logs an error with its causes, the outermost first.
pub fn error(error: &anyhow::Error) {
    let causes: Vec<String> = error.chain().map(|cause| shortened(&cause.to_string())).collect();
    log(format_args!("error: {}", causes.join(": ")));
}

/// Maximum characters of a cause. An error may quote a file's contents of any length, so the middle of a longer message is
/// cut out.
const LONGEST_CAUSE: usize = 2_000;

fn shortened(text: &str) -> String {
    let count = text.chars().count();
    if count <= LONGEST_CAUSE {
        return text.to_owned();
    }
    let start: String = text.chars().take(LONGEST_CAUSE / 2).collect();
    let end: String = text.chars().skip(count - LONGEST_CAUSE / 2).collect();
    format!("{start} … {end}")
}

/// The progress of an operation: a bar with the remaining time, or a log line at each tenth.
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

    /// Writes a log line without breaking the bar.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_has_no_plural() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "row")), ["0 rows", "1 row", "2 rows"]);
    }

    #[test]
    fn long_causes_lose_their_middle() {
        assert_eq!(shortened("a.tsv, line 2: no label"), "a.tsv, line 2: no label");
        let long = format!("a.tsv, line 2: label `{}` is not in the list", "好".repeat(1 << 20));
        let short = shortened(&long);
        assert!(short.starts_with("a.tsv, line 2: label `好") && short.ends_with("好` is not in the list"), "{short}");
        assert_eq!(short.chars().count(), LONGEST_CAUSE + " … ".chars().count());
    }
}
