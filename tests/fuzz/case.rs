//! One case: an input that two numbers determine, and its outcome.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::MEMORY;
use crate::mutate::{Mutant, mutant};
use crate::readers::{Answer, Context, Input, Judged, Reader, shares};
use crate::seed::Seed;

/// A reader may allocate this many bytes for each byte of its input, in addition to [`FREE`].
const MULTIPLE: usize = 64;
/// Bytes that any reader may allocate, for threads, buffers and the tables of a tokenizer.
const FREE: usize = 64 << 20;

/// The report of a case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub number: u64,
    pub reader: String,
    pub seed: String,
    /// Description of the file and its changes.
    pub what: String,
    pub outcome: Outcome,
    /// Peak number of bytes allocated during the case.
    pub peak: usize,
    pub input: usize,
}

/// The judged outcome of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Accepted,
    Refused(String),
    /// A bug, with its kind and its details.
    Finding(String, String),
}

/// Runs cases.
pub struct Cases {
    pub campaign: u64,
    pub context: Context,
    readers: Vec<&'static Reader>,
    seeds: HashMap<&'static str, Vec<(Seed, Answer)>>,
}

impl Cases {
    pub fn new(campaign: u64, context: Context) -> Self {
        Self { campaign, context, readers: shares(), seeds: HashMap::new() }
    }

    /// The reader of a case.
    pub fn reader(&self, number: u64) -> &'static Reader {
        self.readers[(number % self.readers.len() as u64) as usize]
    }

    /// The folder that a case's input is written to.
    pub fn folder(&self) -> PathBuf {
        self.context.scratch.join("input")
    }

    /// The seeds of a reader with their answers. A refused seed is an error, because its cases would test nothing.
    fn seeds(&mut self, reader: &'static Reader) -> anyhow::Result<&[(Seed, Answer)]> {
        if !self.seeds.contains_key(reader.name) {
            let mut seeds = Vec::new();
            for seed in (reader.seeds)(&self.context)? {
                seed.write(&self.folder(), None)?;
                let input = Input { folder: &self.folder(), seed: seed.name, context: &self.context };
                let answer = (reader.read)(&input)
                    .with_context(|| format!("{}: the seed `{}` is refused", reader.name, seed.name))?;
                anyhow::ensure!(answer.problem.is_none(), "{}: the seed `{}`: {answer:?}", reader.name, seed.name);
                seeds.push((seed, answer));
            }
            self.seeds.insert(reader.name, seeds);
        }
        Ok(&self.seeds[reader.name])
    }

    /// Selects the seed of a case, so that the seeds of a reader alternate.
    fn turn(&self, number: u64) -> usize {
        number as usize / self.readers.len() + number as usize
    }

    /// The seed of a case, without reading it.
    pub fn seed(&self, number: u64) -> anyhow::Result<Seed> {
        std::fs::create_dir_all(&self.context.scratch)?;
        let mut seeds = (self.reader(number).seeds)(&self.context)?;
        let count = seeds.len();
        Ok(seeds.swap_remove(self.turn(number) % count))
    }

    /// Makes the seeds that a case needs.
    pub fn prepare(&mut self, number: u64) -> anyhow::Result<()> {
        self.seeds(self.reader(number)).map(|_| ())
    }

    /// Writes the input of a case, reads it, and judges the outcome.
    pub fn run(&mut self, number: u64) -> anyhow::Result<Report> {
        let reader = self.reader(number);
        let campaign = self.campaign;
        let turn = self.turn(number);
        let seeds = self.seeds(reader)?;
        let (seed, expected) = seeds[turn % seeds.len()].clone();
        let mutant = mutant(&seed, campaign, number);
        let folder = self.folder();
        let input = Input { folder: &folder, seed: seed.name, context: &self.context };

        seed.write(&folder, Some(&mutant))?;
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let first = read(reader, &input);
        let peak = MEMORY.peak_usage().saturating_sub(before);
        let length = seed.len(Some(&mutant));
        let mut outcome = match &first {
            Taken::Answered(answer) => judge(reader, &seed, &mutant, &expected, answer),
            Taken::Refused(message) => judge_message(message, &mutant, &folder),
            Taken::Panicked(message) => Outcome::Finding("panic".to_owned(), message.clone()),
        };
        if peak > FREE + MULTIPLE * length && !matches!(outcome, Outcome::Finding(..)) {
            let particulars = format!("{} MiB for an input of {length} bytes", peak >> 20);
            outcome = Outcome::Finding("memory".to_owned(), particulars);
        }
        if reader.repeated && outcome == Outcome::Accepted {
            let again = read(reader, &input);
            if again != first {
                outcome = Outcome::Finding("changing".to_owned(), format!("{first:?}, then {again:?}"));
            }
        }
        let (reader, seed) = (reader.name.to_owned(), seed.name.to_owned());
        Ok(Report { number, reader, seed, what: mutant.what(), outcome, peak, input: length })
    }
}

/// The result of a reader.
#[derive(Clone, Debug, PartialEq)]
enum Taken {
    Answered(Answer),
    Refused(String),
    Panicked(String),
}

/// Reads on a thread of rayon's pool, as the command line does. Its stack is smaller than that of the main thread.
fn read(reader: &Reader, input: &Input<'_>) -> Taken {
    let result = catch_unwind(AssertUnwindSafe(|| rayon::scope(|_| (reader.read)(input))));
    match result {
        Ok(Ok(answer)) => Taken::Answered(answer),
        Ok(Err(error)) => Taken::Refused(format!("{error:#}")),
        Err(payload) => Taken::Panicked(last_panic(&payload)),
    }
}

fn judge(reader: &Reader, seed: &Seed, mutant: &Mutant, expected: &Answer, answer: &Answer) -> Outcome {
    let file = seed.files.iter().find(|file| file.path == mutant.path).expect("a mutant is one of the seed's files");
    let judged = Judged { mutant, answer, seed: expected, original: &file.bytes };
    match answer.problem.clone().or_else(|| (reader.judge)(&judged)) {
        Some(problem) => Outcome::Finding("wrong answer".to_owned(), problem),
        None => Outcome::Accepted,
    }
}

/// Checks that an error names the changed file or the input's folder.
fn judge_message(message: &str, mutant: &Mutant, folder: &Path) -> Outcome {
    let name = mutant.path.rsplit('/').next().unwrap_or_default();
    let is_named = message.contains(name)
        || folder.to_str().is_some_and(|folder| message.contains(folder))
        || (name == "set.txt" && message.contains("--set"));
    let shown: String = message.chars().take(300).collect();
    if is_named { Outcome::Refused(shown) } else { Outcome::Finding("unnamed file".to_owned(), shown) }
}

/// The message of the last panic, set by the panic hook.
static LAST_PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Installs a panic hook that stores panics instead of printing them.
pub fn note_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let message = format!("{place}: {}", words(info.payload()));
        *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
    }));
}

fn last_panic(payload: &(dyn Any + Send)) -> String {
    let noted = LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
    noted.unwrap_or_else(|| words(payload))
}

fn words(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
    text.chars().take(400).collect()
}
