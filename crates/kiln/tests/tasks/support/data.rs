//! Synthetic data, which is the same in each run and follows a rule that a small model can learn.

use std::fs;
use std::path::Path;

/// SplitMix64 (Steele, Lea and Flood, *Fast Splittable Pseudorandom Number Generators*, 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    pub fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// The number of rows of each split.
#[derive(Clone, Copy)]
pub struct Corpus {
    pub train: usize,
    pub validation: usize,
    pub test: usize,
}

impl Default for Corpus {
    fn default() -> Self {
        Self { train: 800, validation: 100, test: 200 }
    }
}

impl Corpus {
    /// Draws the rows of all splits from one generator, without duplicates, so that no test row is in train.
    pub fn draw<T: Clone + std::hash::Hash + Eq>(self, mut row: impl FnMut(&mut Random) -> T) -> [Vec<T>; 3] {
        let mut random = Random::new(7);
        let mut seen = std::collections::HashSet::new();
        [self.train, self.validation, self.test].map(|count| {
            let mut rows = Vec::with_capacity(count);
            while rows.len() < count {
                let row = row(&mut random);
                if seen.insert(row.clone()) {
                    rows.push(row);
                }
            }
            rows
        })
    }
}

/// Creates a folder with a WordPiece vocabulary of these words and BERT's special tokens.
pub fn vocabulary<'a>(folder: &Path, words: impl IntoIterator<Item = &'a str>) {
    let mut words: Vec<&str> = words.into_iter().collect();
    words.sort_unstable();
    words.dedup();
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    fs::create_dir_all(folder).expect("a new folder");
    write_lines(&folder.join("vocab.txt"), special.into_iter().chain(words));
}

pub fn write_lines<S: AsRef<str>>(path: &Path, lines: impl IntoIterator<Item = S>) {
    let mut text = String::new();
    for line in lines {
        text.push_str(line.as_ref());
        text.push('\n');
    }
    fs::write(path, text).expect("a small file");
}
