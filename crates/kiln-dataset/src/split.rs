use std::collections::{BTreeMap, HashMap, HashSet};

use kiln_schema::{LabelId, Split, Splits};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::key::{self, Key};
use crate::{Error, Item};

/// The share of each split. The shares must add up to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SplitConfig {
    /// The share of the training split; above 0.
    pub train: f64,
    /// The share of the validation split, which selects the best checkpoint; above 0.
    pub validation: f64,
    /// The share of the test split, which is used once at the end; 0 for no test split.
    pub test: f64,
    /// Whether to stratify: each label, or each set of labels, has about the same share in each split.
    pub stratify: bool,
    /// The seed of the random assignment.
    pub seed: u64,
}

impl Default for SplitConfig {
    fn default() -> Self {
        Self { train: 0.8, validation: 0.1, test: 0.1, stratify: true, seed: 42 }
    }
}

impl SplitConfig {
    /// Checks the shares. [`split`] also does this.
    ///
    /// # Errors
    /// When a share is out of range, or when the shares do not add up to 1.
    pub fn validate(&self) -> Result<(), Error> {
        let wrong = |field, found, expected| Err(Error::SplitConfig { field, found, expected });
        for (field, share) in [("train", self.train), ("validation", self.validation)] {
            if !(share > 0.0 && share < 1.0) {
                return wrong(field, share, "more than 0 and less than 1");
            }
        }
        if !(0.0..1.0).contains(&self.test) {
            return wrong("test", self.test, "0, for no test split, or more and less than 1");
        }
        let sum = self.train + self.validation + self.test;
        if (sum - 1.0).abs() > 1e-6 {
            return wrong("train + validation + test", sum, "1");
        }
        Ok(())
    }
}

/// Splits examples at random. The same seed gives the same split.
///
/// Texts that differ only in case, width, spaces and punctuation form a group, which is never divided between splits. A
/// group is stratified by the labels of its first row. Within a split the examples keep their order.
///
/// # Errors
/// When the config is not valid, or when a requested split would be empty.
pub fn split<T: Item>(examples: Vec<T>, config: &SplitConfig) -> Result<Splits<Vec<T>>, Error> {
    config.validate()?;
    let sides = assign(&examples, config);
    let rows = examples.len();
    let mut splits = Splits { train: Vec::new(), validation: Vec::new(), test: (config.test > 0.0).then(Vec::new) };
    for (example, side) in examples.into_iter().zip(sides) {
        match (side, &mut splits.test) {
            (Split::Test, Some(test)) => test.push(example),
            (Split::Validation, _) => splits.validation.push(example),
            _ => splits.train.push(example),
        }
    }
    splits.try_map(
        |split, examples| if examples.is_empty() { Err(Error::TooFewRows { rows, split }) } else { Ok(examples) },
    )
}

/// The split of each example.
fn assign<T: Item>(examples: &[T], config: &SplitConfig) -> Vec<Split> {
    let groups = groups(examples);
    // Sorted, so that sets of labels with the same first label are neighbours.
    let mut strata: BTreeMap<&[LabelId], Vec<&[u32]>> = BTreeMap::new();
    for group in &groups {
        let stratum = if config.stratify { examples[group[0] as usize].stratum() } else { &[] };
        strata.entry(stratum).or_default().push(group);
    }

    let mut rng = StdRng::seed_from_u64(config.seed);
    let mut sides = vec![Split::Train; examples.len()];
    // The rounding error of one stratum carries over to the next, so that splits also get rows of rare labels.
    let mut quotas = [Quota::new(Split::Test, config.test), Quota::new(Split::Validation, config.validation)];
    for stratum in strata.values_mut() {
        stratum.shuffle(&mut rng);
        let rows = stratum.iter().map(|group| group.len()).sum();
        for quota in &mut quotas {
            quota.open(rows);
        }
        for group in stratum {
            let Some(quota) = quotas.iter_mut().find(|quota| quota.room >= group.len()) else {
                continue;
            };
            quota.room -= group.len();
            for row in *group {
                sides[*row as usize] = quota.split;
            }
        }
    }
    sides
}

/// The number of rows of a stratum that a split may still take.
struct Quota {
    split: Split,
    share: f64,
    /// The number of rows in all strata so far.
    seen: usize,
    room: usize,
    /// The number of rows that the split should have from all strata so far.
    due: usize,
}

impl Quota {
    fn new(split: Split, share: f64) -> Self {
        Self { split, share, seen: 0, room: 0, due: 0 }
    }

    /// Adds room for the split's share of another stratum.
    fn open(&mut self, rows: usize) {
        self.seen += rows;
        let due = (self.seen as f64 * self.share).round() as usize;
        self.room += due - self.due;
        self.due = due;
    }
}

/// The rows of each text, ordered by the first row.
pub(crate) fn groups<T: Item>(examples: &[T]) -> Vec<Vec<u32>> {
    let mut groups: Vec<Vec<u32>> = Vec::new();
    let mut places: HashMap<Key, u32> = HashMap::with_capacity(examples.len());
    for (row, example) in (0u32..).zip(examples) {
        let place = *places.entry(key::loose(example.source())).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() as u32 - 1
        });
        groups[place as usize].push(row);
    }
    groups
}

/// Removes each training example whose trimmed text is also in validation or test. Returns the number of removed
/// examples.
pub fn drop_leaks<T: Item>(mut splits: Splits<Vec<T>>) -> (Splits<Vec<T>>, usize) {
    let key = |item: &T| key::exact(item.source());
    let held_out: HashSet<Key> = splits.validation.iter().chain(splits.test.iter().flatten()).map(key).collect();
    let before = splits.train.len();
    splits.train.retain(|example| !held_out.contains(&key(example)));
    let dropped = before - splits.train.len();
    (splits, dropped)
}

#[cfg(test)]
mod tests {
    use kiln_schema::Example;

    use super::*;

    /// 997 rows of three labels, 70 : 25 : 5. About a third repeat an earlier text, some with other punctuation.
    fn examples(seed: u64) -> Vec<Example> {
        use rand::RngExt;
        let mut rng = StdRng::seed_from_u64(seed);
        (0..997)
            .map(|_| {
                let number: u32 = rng.random_range(0..1_500);
                let target = match number % 20 {
                    0 => 2,
                    1..6 => 1,
                    _ => 0,
                };
                let mark = ["", "！", " ", "."][rng.random_range(0..4)];
                Example { text: format!("第{number}条{mark}"), text_pair: None, target }
            })
            .collect()
    }

    fn keys(examples: &[Example]) -> HashSet<Key> {
        examples.iter().map(|example| key::loose(example.texts())).collect()
    }

    #[test]
    fn sets_of_labels_are_stratified() {
        let row = |at: usize| Example {
            text: format!("text {at}"),
            text_pair: None,
            target: match at % 10 {
                0 => vec![0, 1],
                1..=4 => vec![0],
                _ => vec![],
            },
        };
        for seed in 0..8 {
            let config = SplitConfig { seed, ..SplitConfig::default() };
            let splits = split((0..100).map(row).collect(), &config).expect("enough rows");
            let rare = |rows: &[Example<Vec<LabelId>>]| rows.iter().filter(|row| row.target.contains(&1)).count();
            assert_eq!((rare(&splits.validation), splits.test.as_deref().map(rare)), (1, Some(1)), "seed {seed}");
        }
    }

    #[test]
    fn no_text_stands_on_two_sides_and_labels_keep_their_shares() {
        for seed in 0..20 {
            let examples = examples(seed);
            let config = SplitConfig { seed, ..SplitConfig::default() };
            let splits = split(examples.clone(), &config).expect("enough rows");
            let test = splits.test.as_deref().expect("a test share");

            let sides = [keys(&splits.train), keys(&splits.validation), keys(test)];
            for (i, a) in sides.iter().enumerate() {
                assert!(sides[..i].iter().all(|b| a.is_disjoint(b)), "seed {seed}");
            }
            assert_eq!(splits.train.len() + splits.validation.len() + test.len(), examples.len());

            for label in 0..3 {
                let of =
                    |examples: &[Example]| examples.iter().filter(|example| example.target == label).count() as f64;
                let all = of(&examples);
                for (part, share) in [(&splits.validation[..], 0.1), (test, 0.1), (&splits.train, 0.8)] {
                    assert!((of(part) - share * all).abs() <= 3.0, "seed {seed}, label {label}: {} of {all}", of(part));
                }
            }
        }
    }

    #[test]
    fn the_seed_alone_decides() {
        let config = SplitConfig::default();
        let splits = split(examples(1), &config).expect("enough rows");
        assert_eq!(split(examples(1), &config).expect("enough rows"), splits);
        let other = split(examples(1), &SplitConfig { seed: 43, ..config }).expect("enough rows");
        assert_ne!(other.validation, splits.validation);
    }

    #[test]
    fn a_split_stays_the_same_over_versions() {
        let examples = (0..30).map(|i| Example { text: i.to_string(), text_pair: None, target: i % 2 }).collect();
        let splits = split(examples, &SplitConfig::default()).expect("enough rows");
        let texts = |examples: &[Example]| examples.iter().map(|example| example.text.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&splits.validation), ["1", "4", "26"]);
        assert_eq!(texts(&splits.test.expect("a test share")), ["22", "24", "27"]);
    }

    #[test]
    fn rare_labels_together_fill_a_split() {
        // A tenth of each label rounds to 0.
        let examples = (0..120).map(|i| Example { text: i.to_string(), text_pair: None, target: i / 4 }).collect();
        let splits = split(examples, &SplitConfig::default()).expect("enough rows");
        assert_eq!((splits.validation.len(), splits.test.map(|test| test.len())), (12, Some(12)));
    }

    #[test]
    fn no_test_share_is_no_test_split() {
        let config = SplitConfig { train: 0.9, test: 0.0, stratify: false, ..SplitConfig::default() };
        let splits = split(examples(2), &config).expect("enough rows");
        assert_eq!((splits.validation.len(), splits.test), (100, None));
    }

    #[test]
    fn bad_shares_and_too_few_rows_are_refused() {
        let message = |config: SplitConfig| split(examples(3), &config).expect_err("a bad share").to_string();
        let config = SplitConfig::default();
        assert_eq!(
            message(SplitConfig { train: 1.2, ..config }),
            "split.train is 1.2: expected more than 0 and less than 1"
        );
        assert!(message(SplitConfig { train: 0.9, ..config }).starts_with("split.train + validation + test is 1.1"));
        assert!(message(SplitConfig { test: f64::NAN, ..config }).starts_with("split.test is NaN"));
        let two = examples(3).into_iter().take(2).collect();
        assert!(matches!(split(two, &config), Err(Error::TooFewRows { rows: 2, .. })));
    }

    #[test]
    fn leaks_are_dropped_from_train() {
        let example = |text: &str| Example { text: text.to_owned(), text_pair: None, target: 0 };
        let splits = Splits {
            train: ["a", "b", "c", "a", "d"].map(example).to_vec(),
            validation: ["a", "x"].map(example).to_vec(),
            test: Some(vec![example("d")]),
        };
        let (splits, dropped) = drop_leaks(splits);
        assert_eq!((splits.train, dropped), (["b", "c"].map(example).to_vec(), 3));
    }
}
