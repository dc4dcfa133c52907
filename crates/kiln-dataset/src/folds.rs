use std::collections::BTreeMap;

use kiln_schema::LabelId;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::split::groups;
use crate::{Error, Item};

/// Assigns each example to one of `folds` folds of about the same size, and returns the fold of each example, from 0.
///
/// The same seed gives the same folds. Each label has about the same share in each fold. Copies of a text, compared as
/// in [`split`](crate::split()), are in the same fold.
///
/// # Errors
/// When there are fewer than two folds, or fewer distinct texts than folds.
pub fn folds<T: Item>(examples: &[T], folds: usize, seed: u64) -> Result<Vec<usize>, Error> {
    let groups = groups(examples);
    if folds < 2 || groups.len() < folds {
        return Err(Error::Folds { folds, texts: groups.len() });
    }
    let mut strata: BTreeMap<&[LabelId], Vec<&[u32]>> = BTreeMap::new();
    for group in &groups {
        strata.entry(examples[group[0] as usize].stratum()).or_default().push(group);
    }
    let mut rng = StdRng::seed_from_u64(seed);
    let mut parts = vec![0; examples.len()];
    let mut sizes = vec![0; folds];
    for stratum in strata.values_mut() {
        stratum.shuffle(&mut rng);
        let mut of_label = vec![0; folds];
        for group in stratum {
            let part = (0..folds).min_by_key(|&part| (of_label[part], sizes[part])).expect("there are two or more");
            of_label[part] += group.len();
            sizes[part] += group.len();
            group.iter().for_each(|&row| parts[row as usize] = part);
        }
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use kiln_schema::Example;

    use super::*;

    #[test]
    fn labels_keep_their_shares_and_copies_stay_together() {
        let example = |number: usize| Example {
            text: format!("第{}条{}", number % 180, if number > 180 { "！" } else { "" }),
            text_pair: None,
            target: usize::from((number % 180).is_multiple_of(3)),
        };
        let examples: Vec<Example> = (0..203).map(example).collect();
        for seed in 0..10 {
            let parts = folds(&examples, 4, seed).expect("enough rows");
            let mut by_text = HashMap::new();
            let mut sizes = [[0; 2]; 4];
            for (example, &part) in examples.iter().zip(&parts) {
                sizes[part][example.target] += 1;
                let text = example.text.trim_end_matches('！').to_owned();
                assert_eq!(*by_text.entry(text).or_insert(part), part, "seed {seed}");
            }
            for label in 0..2 {
                let counts = sizes.map(|counts| counts[label]);
                let spread = counts.iter().max().expect("four") - counts.iter().min().expect("four");
                assert!(spread <= 2, "seed {seed}: {sizes:?}");
            }
            assert_eq!(folds(&examples, 4, seed).expect("enough rows"), parts);
        }
        assert_ne!(folds(&examples, 4, 1).expect("enough rows"), folds(&examples, 4, 2).expect("enough rows"));
    }

    #[test]
    fn too_few_texts_or_parts_are_refused() {
        let example = |text: &str| Example { text: text.to_owned(), text_pair: None, target: 0 };
        let copies = ["a", "a", "A!"].map(example);
        assert_eq!(
            folds(&copies, 2, 0).expect_err("one text").to_string(),
            "2 folds of 1 distinct texts; expected at least 2 folds, and at least one text per fold"
        );
        assert!(folds(&["a", "b"].map(example), 1, 0).is_err());
        assert_eq!(folds(&["a", "b"].map(example), 2, 0).expect("a text each").iter().sum::<usize>(), 1);
    }
}
