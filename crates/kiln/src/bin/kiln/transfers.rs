//! Shows downloads: on a terminal, one bar for the current file and one for all files; plain lines elsewhere.

use std::io::{IsTerminal, stderr};

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};
use kiln_hub::Progress;

use crate::console;

/// Shows the downloads of one pull.
#[derive(Debug, Default)]
pub struct Transfers {
    bars: Option<Bars>,
    /// The file that is being downloaded.
    file: String,
    /// Tenths of all files that have been logged.
    tenths: u64,
}

#[derive(Debug)]
struct Bars {
    both: MultiProgress,
    file: ProgressBar,
    all: ProgressBar,
}

impl Bars {
    fn new() -> Self {
        let style = ProgressStyle::with_template(
            "{prefix:<9} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta} {msg}",
        )
        .expect("the template is well formed");
        let both = MultiProgress::new();
        let bar = || both.add(ProgressBar::new(0).with_style(style.clone()));
        let (file, all) = (bar().with_prefix("pull"), bar().with_prefix("in all"));
        Self { both, file, all }
    }

    fn set(&self, is_next: bool, (name, received, size): (&str, u64, u64), all_received: u64) {
        if is_next {
            self.file.reset();
            self.file.set_length(size);
            self.file.set_message(name.to_owned());
        }
        self.file.set_position(received);
        self.all.set_position(all_received);
    }
}

impl Transfers {
    pub fn show(&mut self, progress: &Progress<'_>) {
        match *progress {
            Progress::Asking { address } => self.log(&format!("asking {address}")),
            Progress::Unreachable { error, next } => {
                let cause = std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"));
                self.log(&format!("{error}{cause}; trying {next} instead"));
            }
            Progress::Planned { files, size } => {
                self.log(&format!("downloading {}, {}", console::counted(files, "file"), HumanBytes(size)));
                self.tenths = 0;
                if stderr().is_terminal() {
                    self.bars.get_or_insert_with(Bars::new).all.set_length(size);
                }
            }
            Progress::Downloading { file, received, size, all_received, all_size } => {
                let is_next = self.file != file;
                file.clone_into(&mut self.file);
                match &self.bars {
                    Some(bars) => bars.set(is_next, (file, received, size), all_received),
                    None => self.line(is_next, (file, received, size), (all_received, all_size)),
                }
            }
            Progress::Verified { file } => self.log(&format!("verified {file}")),
            _ => {}
        }
    }

    /// Logs a line at the beginning of each file, and at each tenth of all files.
    fn line(&mut self, is_next: bool, (file, received, size): (&str, u64, u64), (done, total): (u64, u64)) {
        let tenths = done.saturating_mul(10) / total.max(1);
        if is_next || tenths > self.tenths {
            self.tenths = tenths;
            let (received, size, done, total) =
                (HumanBytes(received), HumanBytes(size), HumanBytes(done), HumanBytes(total));
            console::log(format_args!("{:<9} {file}: {received} of {size}; in all {done} of {total}", "pull"));
        }
    }

    /// Writes a log line without breaking the bars.
    fn log(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.both.suspend(|| console::log(text)),
            None => console::log(text),
        }
    }
}

impl Drop for Transfers {
    fn drop(&mut self) {
        if let Some(bars) = &self.bars {
            bars.file.finish_and_clear();
            bars.all.finish_and_clear();
        }
    }
}
