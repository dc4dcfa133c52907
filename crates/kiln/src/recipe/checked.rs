//! Range checks of a recipe's values: functions for `deserialize_with`, so that errors have the location of the value.

use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer};

/// A whole number of at least `MIN`.
pub fn at_least<'de, const MIN: usize, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    whole(i64::deserialize(deserializer)?, MIN)
}

/// Whole numbers, each of at least 1.
pub fn each_at_least_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
    Vec::<i64>::deserialize(deserializer)?.into_iter().map(|number| whole(number, 1)).collect()
}

/// At least one whole number, in strictly ascending order.
pub fn ascending<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
    let numbers = Vec::<i64>::deserialize(deserializer)?;
    let numbers: Vec<usize> = numbers.into_iter().map(|number| whole(number, 0)).collect::<Result<_, _>>()?;
    match !numbers.is_empty() && numbers.is_sorted_by(|a, b| a < b) {
        true => Ok(numbers),
        false => {
            let found = format!("{numbers:?}");
            Err(D::Error::invalid_value(Unexpected::Other(&found), &"whole numbers in ascending order, at least one"))
        }
    }
}

/// A finite number above 0.
pub fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    number(deserializer, |number| number > 0.0, "a number above 0")
}

/// A finite number above 0, for an optional key.
pub fn some_positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    positive(deserializer).map(Some)
}

/// A finite number of at least 0.
pub fn not_negative<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    number(deserializer, |number| number >= 0.0, "a number of at least 0")
}

/// A number from 0 to 1.
pub fn share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    number(deserializer, |number| (0.0..=1.0).contains(&number), "a number from 0 to 1")
}

/// A number from 0 to below 1.
pub fn below_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    number(deserializer, |number| (0.0..1.0).contains(&number), "a number of at least 0 and below 1")
}

fn whole<E: Error>(number: i64, min: usize) -> Result<usize, E> {
    match usize::try_from(number) {
        Ok(number) if number >= min => Ok(number),
        _ => Err(E::invalid_value(Unexpected::Signed(number), &&*format!("a whole number of at least {min}"))),
    }
}

fn number<'de, D: Deserializer<'de>>(
    deserializer: D,
    holds: impl Fn(f64) -> bool,
    expected: &'static str,
) -> Result<f64, D::Error> {
    let number = f64::deserialize(deserializer)?;
    match number.is_finite() && holds(number) {
        true => Ok(number),
        false => Err(D::Error::invalid_value(Unexpected::Float(number), &expected)),
    }
}
