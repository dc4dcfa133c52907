//! Mutations: random changes to the bytes of a file that suit its format.

pub mod bytes;
mod parquet;
mod pickle;
pub mod safetensors;
mod text;
pub mod tree;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::seed::{Seed, SeedFile};

/// New bytes of a file, and the known effects of the change.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub bytes: Vec<u8>,
    /// A description of the change.
    pub what: String,
    /// Whether the end of the file is missing.
    pub truncated: bool,
    /// Whether the text is no longer valid UTF-8.
    pub invalid_utf8: bool,
    /// Whether a tensor of the model has another shape.
    pub reshaped: bool,
    /// A special file instead of a regular one.
    pub special: Option<Special>,
}

/// A special file that replaces a regular one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    Folder,
    Fifo,
    DanglingLink,
}

impl Change {
    pub fn new(bytes: impl Into<Vec<u8>>, what: impl Into<String>) -> Self {
        Self { bytes: bytes.into(), what: what.into(), ..Self::default() }
    }
}

/// A seed with one file changed, once or a few times.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// The file, relative to the input's folder.
    pub path: String,
    /// The changes in order. The effect on the seed is known only if there is a single change.
    pub changes: Vec<Change>,
}

impl Mutant {
    /// The last change, which has the final bytes.
    pub fn last(&self) -> &Change {
        self.changes.last().expect("a mutant has at least one change")
    }

    /// The change, if it is the only one.
    pub fn only(&self) -> Option<&Change> {
        if let [change] = self.changes.as_slice() { Some(change) } else { None }
    }

    pub fn what(&self) -> String {
        let changes: Vec<&str> = self.changes.iter().map(|change| change.what.as_str()).collect();
        format!("{}: {}", self.path, changes.join("; then "))
    }
}

/// The mutant of a case. It depends only on the seed's files, the campaign's seed and the case's number.
pub fn mutant(seed: &Seed, campaign: u64, number: u64) -> Mutant {
    let mut rng = StdRng::seed_from_u64(campaign ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let files: Vec<&SeedFile> = seed.files.iter().filter(|file| file.mutable).collect();
    let file = pick(&mut rng, &files);
    let mut bytes = file.bytes.clone();
    let mut changes = Vec::new();
    if rng.random_bool(0.003) {
        let special = *pick(&mut rng, &[Special::Folder, Special::Fifo, Special::DanglingLink]);
        let special = if seed.piped && special == Special::Fifo { Special::Folder } else { special };
        changes.push(Change { special: Some(special), ..Change::new([], format!("{special:?} in its place")) });
        return Mutant { path: file.path.clone(), changes };
    }
    for _ in 0..*pick(&mut rng, &[1, 1, 1, 2, 3]) {
        let change = mutate(&file.path, &bytes, &mut rng);
        bytes.clone_from(&change.bytes);
        changes.push(change);
    }
    Mutant { path: file.path.clone(), changes }
}

/// Changes a file by the format in its name. One change in four ignores the format.
fn mutate(path: &str, bytes: &[u8], rng: &mut StdRng) -> Change {
    // Some changes are not possible for every file, so several are tried.
    for _ in 0..8 {
        let by_kind = rng.random_bool(0.75);
        let change = match path.rsplit('.').next() {
            Some("safetensors") if by_kind => safetensors::mutate(bytes, rng),
            Some("json") if by_kind => tree::mutate_json(bytes, rng),
            Some("jsonl") if by_kind => tree::mutate_jsonl(bytes, rng),
            Some("toml") if by_kind => tree::mutate_toml(bytes, rng),
            Some("parquet") if by_kind => parquet::mutate(bytes, rng),
            Some("bin") if by_kind => pickle::mutate(bytes, rng),
            Some("safetensors" | "parquet" | "arrow" | "bin") => Some(bytes::mutate(bytes, rng)),
            _ => Some(text::mutate(bytes, rng)),
        };
        if let Some(change) = change.filter(|change| change.bytes != bytes) {
            return change;
        }
    }
    Change { truncated: true, ..Change::new([], "emptied") }
}

pub fn pick<'a, T>(rng: &mut StdRng, choices: &'a [T]) -> &'a T {
    choices.choose(rng).expect("there is something to choose from")
}
