//! What is fuzzed: each reader has seeds, and a function that reads an input and uses what was read.

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
    /// How many cases of [`shares`] it gets.
    pub share: usize,
    /// Inputs that it accepts.
    pub seeds: fn(&Context) -> anyhow::Result<Vec<Seed>>,
    /// An error is a refusal; it must name the file.
    pub read: fn(&Input<'_>) -> anyhow::Result<Answer>,
    /// What is wrong with an answer to a mutant, as far as that can be known.
    pub judge: fn(&Judged<'_>) -> Option<String>,
    /// Whether it is read a second time, to see that the answer is the same.
    pub repeated: bool,
}

/// Where things are.
#[derive(Clone, Debug)]
pub struct Context {
    /// The command line's binary.
    pub kiln: PathBuf,
    /// For inputs and what comes of them.
    pub scratch: PathBuf,
    /// Whether a single case is run, which may take longer.
    pub alone: bool,
}

/// An input on disk.
pub struct Input<'a> {
    pub folder: &'a Path,
    /// The name of its seed.
    pub seed: &'static str,
    pub context: &'a Context,
}

/// What came of an input that was accepted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Of all that was read and computed.
    pub fingerprint: u64,
    /// Rows, where there are any.
    pub rows: usize,
    /// What cannot be right whatever the input was.
    pub problem: Option<String>,
}

/// A mutant's answer beside that of its seed.
pub struct Judged<'a> {
    pub mutant: &'a Mutant,
    pub answer: &'a Answer,
    pub seed: &'a Answer,
    /// The bytes of the changed file as the seed has it.
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

/// The reader of each case, over and over: so that every reader has its share of any range of numbers.
pub fn shares() -> Vec<&'static Reader> {
    let most = READERS.iter().map(|reader| reader.share).max().unwrap_or(0);
    let round = |turn: usize| READERS.iter().filter(move |reader| turn < reader.share);
    (0..most).flat_map(round).collect()
}

/// A hash of what a value looks like, in memory that does not grow with it.
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

/// Nothing is known but what holds for every answer.
fn judge_nothing(_: &Judged<'_>) -> Option<String> {
    None
}

/// The folder of a package of the workspace.
fn workspace_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
