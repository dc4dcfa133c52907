//! `[sweep]`: what `kiln sweep` varies.

use serde::Deserialize;
use toml::{Table, Value};

use super::document::Places;
use super::{RecipeError, explain};

/// What `kiln sweep` varies. Other commands ignore it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sweep {
    /// The varied keys of the recipe and their values, sorted by key.
    pub keys: Vec<(String, Vec<Value>)>,
    /// The values of `train.seed`; if empty, the recipe's own seed is used.
    pub seeds: Vec<u64>,
    /// Number of cross-validation folds of the training split; 0 validates on the recipe's own validation split.
    pub folds: usize,
    /// Early elimination of candidates; `None` trains all of them to the end.
    pub halving: Option<Halving>,
}

/// Successive halving: K. Jamieson and A. Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
/// Optimization", 2016; L. Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020 (arXiv 1810.05934),
/// which defines these rungs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Halving {
    /// After each rung, one in `factor` candidates is kept, at least two, and the next rung has `factor` times the epochs.
    pub factor: usize,
    /// The epochs of the first rung.
    pub min_epochs: usize,
}

/// Evenly spaced values from `min` to `max`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    min: f64,
    max: f64,
    count: usize,
    #[serde(default)]
    scale: Scale,
}

/// How the values of a range are spaced.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scale {
    /// Neighbours have the same difference.
    #[default]
    Linear,
    /// Neighbours have the same ratio.
    Log,
}

impl Sweep {
    /// Reads the `[sweep]` table of a recipe.
    pub(super) fn resolve(table: Table, places: &Places) -> Result<Self, RecipeError> {
        let mut sweep = Self::default();
        let (mut factor, mut min_epochs) = (0, 1);
        for (name, value) in table {
            match name.as_str() {
                "seeds" => sweep.seeds = read(&name, value, places)?,
                "folds" => sweep.folds = read(&name, value, places)?,
                "halving" => factor = read(&name, value, places)?,
                "min_epochs" => min_epochs = read(&name, value, places)?,
                _ => flatten(name, value, &mut |key, value| {
                    let values = values(&value).map_err(|problem| error(&key, &problem, places))?;
                    sweep.keys.push((key, values));
                    Ok(())
                })?,
            }
        }
        sweep.keys.sort_by(|a, b| a.0.cmp(&b.0));
        if sweep.folds == 1 {
            return Err(error("folds", "found 1, expected 0, for none, or at least 2", places));
        }
        if factor == 1 || min_epochs == 0 {
            let (key, expected) =
                if factor == 1 { ("halving", "0, for none, or at least 2") } else { ("min_epochs", "at least 1") };
            return Err(error(key, &format!("expected {expected}"), places));
        }
        sweep.halving = (factor > 0).then_some(Halving { factor, min_epochs });
        for (key, instead) in [("train.seed", "sweep.seeds"), ("train.epochs", "sweep.halving")] {
            let is_given = key == "train.seed" || sweep.halving.is_some();
            if is_given && sweep.keys.iter().any(|(name, _)| name == key) {
                return Err(error(key, &format!("`{instead}` sets it"), places));
            }
        }
        Ok(sweep)
    }

    /// Every combination of the values, as assignments `KEY = VALUE`. The last key varies fastest.
    pub fn candidates(&self) -> Vec<Vec<String>> {
        let mut candidates = vec![Vec::new()];
        for (key, values) in &self.keys {
            let with =
                |candidate: &Vec<String>, value: &Value| [&candidate[..], &[format!("{key} = {value}")]].concat();
            candidates = candidates
                .iter()
                .flat_map(|candidate| values.iter().map(move |value| with(candidate, value)))
                .collect();
        }
        candidates
    }

    /// The `[sweep]` table as TOML, with every value written out.
    pub fn to_toml(&self) -> String {
        let mut table: Table = self.keys.iter().map(|(key, values)| (key.clone(), values.clone().into())).collect();
        let whole = |number: usize| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
        if !self.seeds.is_empty() {
            table.insert(
                "seeds".to_owned(),
                self.seeds.iter().map(|seed| whole(*seed as usize)).collect::<Vec<_>>().into(),
            );
        }
        table.insert("folds".to_owned(), whole(self.folds));
        if let Some(Halving { factor, min_epochs }) = self.halving {
            table.insert("halving".to_owned(), whole(factor));
            table.insert("min_epochs".to_owned(), whole(min_epochs));
        }
        format!("[sweep]\n{table}")
    }

    /// The epochs of each rung, for a recipe that trains for `epochs`. All candidates are trained in the first rung.
    pub fn rungs(&self, epochs: usize) -> Vec<usize> {
        let Some(Halving { factor, min_epochs }) = self.halving else { return vec![epochs] };
        let shorter = std::iter::successors(Some(min_epochs), |epochs| epochs.checked_mul(factor));
        shorter.take_while(|rung| *rung < epochs).chain([epochs]).collect()
    }
}

/// Reads a value of one of the sweep's own keys.
fn read<'de, T: Deserialize<'de>>(name: &str, value: Value, places: &Places) -> Result<T, RecipeError> {
    let found = value.to_string();
    T::deserialize(value).map_err(|problem| error(name, &format!("found {found}: {}", problem.message()), places))
}

fn error(key: &str, problem: &str, places: &Places) -> RecipeError {
    let key = explain::join("sweep", key);
    places.error(&key, format!("`{key}`: {problem}"))
}

/// Flattens nested tables into dotted keys. A key may also be quoted, as in `"train.learning_rate"`.
fn flatten(
    key: String,
    value: Value,
    add: &mut dyn FnMut(String, Value) -> Result<(), RecipeError>,
) -> Result<(), RecipeError> {
    match value {
        Value::Table(table) if !["min", "max", "count"].iter().any(|name| table.contains_key(*name)) => {
            table.into_iter().try_for_each(|(name, value)| flatten(explain::join(&key, &name), value, add))
        }
        value => add(key, value),
    }
}

/// The values of a list or a range.
fn values(value: &Value) -> Result<Vec<Value>, String> {
    match value {
        Value::Array(values) if !values.is_empty() => Ok(values.clone()),
        Value::Table(table) => {
            let is_whole = ["min", "max"].iter().all(|name| table.get(*name).is_some_and(Value::is_integer));
            let range = Range::deserialize(value.clone()).map_err(|problem| problem.message().to_owned())?;
            range.values(is_whole)
        }
        other => Err(format!(
            "found {other}, expected a list of at least one value, or a range such as {{ min = 1e-5, max = 1e-3, count = 3, scale = \"log\" }}"
        )),
    }
}

impl Range {
    fn values(&self, is_whole: bool) -> Result<Vec<Value>, String> {
        let Self { min, max, count, scale } = *self;
        let is_log = matches!(scale, Scale::Log);
        if !(min < max && max.is_finite() && count >= 2 && (!is_log || min > 0.0)) {
            let above = if is_log { "0 < min < max" } else { "min < max" };
            return Err(format!("found {min} to {max} with count {count}, expected {above} and a count of at least 2"));
        }
        let between = |at: usize| {
            let share = at as f64 / (count - 1) as f64;
            match scale {
                Scale::Linear => min + (max - min) * share,
                Scale::Log => min * (max / min).powf(share),
            }
        };
        // Rounds to ten significant digits.
        let between = |at| format!("{:.9e}", between(at)).parse::<f64>().expect("it was a number");
        let mut numbers: Vec<f64> = (0..count).map(between).collect();
        // The ends are exactly the given numbers.
        (numbers[0], numbers[count - 1]) = (min, max);
        if !is_whole {
            return Ok(numbers.into_iter().map(Value::Float).collect());
        }
        let mut whole: Vec<i64> = numbers.into_iter().map(|number| number.round() as i64).collect();
        whole.dedup();
        Ok(whole.into_iter().map(Value::Integer).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Recipe;

    fn sweep(lines: &str) -> Result<Sweep, RecipeError> {
        let text = format!(
            "task = \"sequence-classification\"\nmodel.source = \"sample\"\n[data]\ntrain = \"a.tsv\"\nvalidation = \"b.tsv\"\n[sweep]\n{lines}"
        );
        Ok(Recipe::swept(&text, "recipe.toml".as_ref(), (&[], &[]))?.1)
    }

    #[test]
    fn lists_and_ranges_are_combined() {
        let sweep = sweep(
            "\"train.learning_rate\" = { min = 1e-5, max = 1e-3, count = 3, scale = \"log\" }\n\
             model.pooling = [\"cls\", \"mean\"]\n\"train.batch_size\" = { min = 4, max = 8, count = 2 }\nseeds = [3, 1]\nfolds = 4",
        );
        let sweep = sweep.expect("a good table");
        assert_eq!((&sweep.seeds[..], sweep.folds, sweep.halving), (&[3, 1][..], 4, None));
        let candidates = sweep.candidates();
        assert_eq!(candidates.len(), 12);
        assert_eq!(candidates[0], ["model.pooling = \"cls\"", "train.batch_size = 4", "train.learning_rate = 0.00001"]);
        assert_eq!(candidates[1][2], "train.learning_rate = 0.0001");
        assert_eq!(candidates[11], ["model.pooling = \"mean\"", "train.batch_size = 8", "train.learning_rate = 0.001"]);
        let again = super::tests::sweep(sweep.to_toml().strip_prefix("[sweep]\n").expect("a table"));
        assert_eq!(again.expect("what is written is read"), sweep);
        assert_eq!(Sweep::default().candidates(), [Vec::<String>::new()]);
    }

    #[test]
    fn rungs_grow_by_the_factor() {
        let halved = sweep("halving = 3").expect("a good table");
        assert_eq!((halved.rungs(9), halved.rungs(10), halved.rungs(1)), (vec![1, 3, 9], vec![1, 3, 9, 10], vec![1]));
        assert_eq!(sweep("halving = 2\nmin_epochs = 3").expect("a good table").rungs(12), [3, 6, 12]);
        assert_eq!(sweep("").expect("a good table").rungs(9), [9]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (lines, words) in [
            ("\"train.epochs\" = 3", ["line 7", "`sweep.train.epochs`", "found 3"]),
            ("train.epochs = []", ["line 7", "`sweep.train.epochs`", "at least one value"]),
            ("folds = 1", ["line 7", "`sweep.folds`", "at least 2"]),
            ("seeds = [\"a\"]", ["line 7", "`sweep.seeds`", "found [\"a\"]"]),
            ("halving = 1", ["line 7", "`sweep.halving`", "at least 2"]),
            ("\"train.seed\" = [1, 2]", ["line 7", "`sweep.train.seed`", "sweep.seeds"]),
            ("a.b = { min = 1, max = 1, count = 2 }", ["line 7", "`sweep.a.b`", "min < max"]),
            ("a.b = { min = 0.0, max = 1, count = 2, scale = \"log\" }", ["line 7", "`sweep.a.b`", "0 < min"]),
            ("a.b = { min = 0.0, max = 1, steps = 2 }", ["line 7", "`sweep.a.b`", "steps"]),
        ] {
            let message = sweep(lines).expect_err("it is wrong").to_string();
            assert!(words.iter().all(|word| message.contains(word)), "{lines}: {message}");
        }
    }
}
