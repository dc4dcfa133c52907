//! The readers that are fuzzed. Each has seeds, and a function that reads an input and uses the result.

mod commands;
mod models;
mod tables;
mod tokenizers;
mod training;

use std::fmt::{self, Debug, Write as _};
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};

use crate::mutate::Mutant;
use crate::seed::Seed;

/// A reader or a group of them.
pub struct Reader {
    pub name: &'static str,
    /// Its number of cases in each round of [`shares`].
    pub share: usize,
    /// Valid inputs.
    pub seeds: fn(&Context) -> anyhow::Result<Vec<Seed>>,
    /// Reads an input. An error means that the input is refused, and must name the file.
    pub read: fn(&Input<'_>) -> anyhow::Result<Answer>,
    /// Finds a problem in the answer to a mutant, as far as it can be known.
    pub judge: fn(&Judged<'_>) -> Option<String>,
    /// Whether each input is read twice, to check that the answers are equal.
    pub repeated: bool,
}

/// Paths and settings of a campaign.
#[derive(Clone, Debug)]
pub struct Context {
    /// The `kiln` binary.
    pub kiln: PathBuf,
    /// Folder for inputs and outputs.
    pub scratch: PathBuf,
    /// Whether only a single case runs, which may take longer.
    pub alone: bool,
}

/// An input on disk.
pub struct Input<'a> {
    pub folder: &'a Path,
    /// The name of the input's seed.
    pub seed: &'static str,
    pub context: &'a Context,
}

/// The result of reading an input that was accepted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// A hash of everything that was read and computed.
    pub fingerprint: u64,
    /// Number of rows; 0 if the input has none.
    pub rows: usize,
    /// A problem that no input can justify.
    pub problem: Option<String>,
}

/// The answer to a mutant, with the answer to its seed.
pub struct Judged<'a> {
    pub mutant: &'a Mutant,
    pub answer: &'a Answer,
    pub seed: &'a Answer,
    /// The bytes of the changed file before the change.
    pub original: &'a [u8],
}

pub const READERS: [Reader; 9] = [
    tables::TABLES,
    tables::CORPUS,
    tables::PARQUET,
    tables::ARROW,
    tokenizers::TOKENIZERS,
    models::MODELS,
    training::CHECKPOINTS,
    training::FEATURES,
    commands::COMMANDS,
];

/// The readers of successive cases, repeated without end. Each reader has its share of any range of case numbers.
pub fn shares() -> Vec<&'static Reader> {
    let most = READERS.iter().map(|reader| reader.share).max().unwrap_or(0);
    let round = |turn: usize| READERS.iter().filter(move |reader| turn < reader.share);
    (0..most).flat_map(round).collect()
}

/// A hash of a value's `Debug` output, in constant memory.
pub fn fingerprint(value: &impl Debug) -> u64 {
    struct Hash(DefaultHasher);
    impl fmt::Write for Hash {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let mut hash = Hash(DefaultHasher::new());
    write!(hash, "{value:?}").expect("a hash takes any text");
    hash.0.finish()
}

/// Finds no problem, for readers without a check of their own.
fn judge_nothing(_: &Judged<'_>) -> Option<String> {
    None
}

/// The path of a file in the workspace.
fn workspace_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
