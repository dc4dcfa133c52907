//! Selects the layers that get an adapter, by peft's rules (`peft/tuners/tuners_utils.py` and `peft/utils/other.py` of
//! peft 0.21).

use std::collections::BTreeMap;

use regex::Regex;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{AdapterConfig, Error, Variant};

/// Layers by their names: peft's `target_modules` and `exclude_modules`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a list of names, a regular expression, or \"all-linear\"")]
pub enum Modules {
    /// A regular expression for the full name of a layer, such as `bert.encoder.layer.0.attention.self.query`; or
    /// `all-linear` for every linear layer of the encoder except the pooler.
    Pattern(String),
    /// Names of layers, or the last components of their names.
    Names(Vec<String>),
}

/// The name for all linear layers except the pooler.
const ALL_LINEAR: &str = "all-linear";

impl Modules {
    /// A list of names.
    pub fn named(names: &[&str]) -> Self {
        Self::Names(names.iter().map(|&name| name.to_owned()).collect())
    }

    /// Converts a list that contains only `all-linear` to a string.
    pub(crate) fn unlisted(self) -> Self {
        if self.is_all() { Self::Pattern(ALL_LINEAR.to_owned()) } else { self }
    }

    /// The names, or the pattern as the only element.
    pub(crate) fn as_list(&self) -> &[String] {
        match self {
            Self::Pattern(pattern) => std::slice::from_ref(pattern),
            Self::Names(names) => names,
        }
    }

    /// Whether this is `all-linear`, as a string or as the only element of a list.
    fn is_all(&self) -> bool {
        self.as_list() == [ALL_LINEAR]
    }
}

/// Values by regular expressions for the last components of layers' names: peft's `rank_pattern` and `alpha_pattern`. If
/// several match, the alphabetically first applies, because peft sorts the keys that it writes.
pub type Patterns<T> = BTreeMap<String, T>;

/// Deserializes one value or a list of values; `null` is an empty list.
pub(crate) fn one_or_many<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected one value, or a list of them")]
    enum OneOrMany<T> {
        One(T),
        Many(Vec<T>),
    }
    Ok(match Option::deserialize(deserializer)? {
        None => Vec::new(),
        Some(OneOrMany::One(value)) => vec![value],
        Some(OneOrMany::Many(values)) => values,
    })
}

/// The layers that a config selects, with its patterns compiled.
#[derive(Debug)]
pub(crate) struct Targets<'a> {
    pub config: &'a AdapterConfig,
    target: Matcher<'a>,
    exclude: Option<Matcher<'a>>,
    /// Each captures the layer number in a name.
    numbers: Vec<Regex>,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
}

#[derive(Debug)]
enum Matcher<'a> {
    All,
    Pattern(Regex),
    Names(&'a [String]),
}

impl<'a> Targets<'a> {
    /// # Errors
    /// When a pattern is not a valid regular expression.
    pub fn new(config: &'a AdapterConfig) -> Result<Self, Error> {
        let number =
            |pattern: &str| compiled("layers_pattern", pattern, &format!(r"^.*\.(?:{pattern})\.(?<number>\d+)\."));
        let numbers = match &config.layers_pattern[..] {
            [] => vec![number(r"[^.]*")?],
            patterns => patterns.iter().map(|pattern| number(pattern)).collect::<Result<_, _>>()?,
        };
        Ok(Self {
            config,
            target: Matcher::new("target_modules", &config.target_modules)?,
            exclude: config.exclude_modules.as_ref().map(|it| Matcher::new("exclude_modules", it)).transpose()?,
            numbers,
            ranks: of_last_parts("rank_pattern", &config.rank_pattern)?,
            alphas: of_last_parts("alpha_pattern", &config.alpha_pattern)?,
        })
    }

    /// Whether a layer gets an adapter. A pooler that is trained in full gets none.
    pub fn contains(&self, layer: &str) -> bool {
        self.names(layer)
            && !(is_pooler(layer) && self.config.train_pooler)
            && !self.exclude.as_ref().is_some_and(|exclude| exclude.matches(layer))
            && self.is_of_chosen_layer(layer)
    }

    /// Whether `target_modules` names a layer, even if other settings exclude it.
    pub fn names(&self, layer: &str) -> bool {
        match self.target {
            Matcher::All => !is_pooler(layer),
            ref other => other.matches(layer),
        }
    }

    fn is_of_chosen_layer(&self, layer: &str) -> bool {
        let chosen = &self.config.layers_to_transform;
        let number =
            || self.numbers.iter().find_map(|pattern| pattern.captures(layer)?["number"].parse::<usize>().ok());
        chosen.is_empty() || number().is_some_and(|number| chosen.contains(&number))
    }

    /// A layer's rank, and the scale of the product of both factors.
    pub fn shape(&self, layer: &str) -> (usize, f64) {
        let rank = first(&self.ranks, layer).unwrap_or(self.config.rank);
        let alpha = first(&self.alphas, layer).unwrap_or(self.config.alpha);
        (rank, self.config.variant.scale(rank, alpha))
    }

    /// The names that match none of the layers.
    pub fn without_layer(&self, layers: &[&str]) -> Vec<String> {
        let Matcher::Names(names) = self.target else { return Vec::new() };
        let is_unknown = |target: &&String| !layers.iter().any(|layer| is_last_part(target, layer));
        names.iter().filter(is_unknown).cloned().collect()
    }
}

impl Variant {
    /// The scale of the product of both factors.
    pub(crate) fn scale(self, rank: usize, alpha: f64) -> f64 {
        let rank = rank as f64;
        alpha / if self.is_rank_stabilized() { rank.sqrt() } else { rank }
    }

    /// Whether the scale is α/√r, as in rsLoRA, and not α/r.
    pub(crate) fn is_rank_stabilized(self) -> bool {
        matches!(self, Self::Rslora | Self::Rsdora)
    }

    /// Whether norms are trained, as in DoRA.
    pub(crate) fn has_norms(self) -> bool {
        matches!(self, Self::Dora | Self::Rsdora)
    }
}

impl<'a> Matcher<'a> {
    fn new(field: &'static str, modules: &'a Modules) -> Result<Self, Error> {
        Ok(match modules {
            all if all.is_all() => Self::All,
            Modules::Pattern(pattern) => Self::Pattern(compiled(field, pattern, &format!("^(?:{pattern})$"))?),
            Modules::Names(names) => Self::Names(names),
        })
    }

    fn matches(&self, layer: &str) -> bool {
        match self {
            Self::All => true,
            Self::Pattern(pattern) => pattern.is_match(layer),
            Self::Names(names) => names.iter().any(|target| is_last_part(target, layer)),
        }
    }
}

fn is_pooler(layer: &str) -> bool {
    layer.split('.').any(|part| part == "pooler")
}

/// Whether a target is the layer's name, or the last components of it.
fn is_last_part(target: &str, layer: &str) -> bool {
    layer.strip_suffix(target).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

fn of_last_parts<T: Copy>(field: &'static str, patterns: &Patterns<T>) -> Result<Vec<(Regex, T)>, Error> {
    let with_value = |(pattern, value): (&String, &T)| {
        Ok((compiled(field, pattern, &format!(r"^(?:.*\.)?(?:{pattern})$"))?, *value))
    };
    patterns.iter().map(with_value).collect()
}

fn first<T: Copy>(patterns: &[(Regex, T)], layer: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| pattern.is_match(layer)).map(|&(_, value)| value)
}

/// Compiles `whole`, the regular expression that contains a setting's `pattern`.
fn compiled(field: &'static str, pattern: &str, whole: &str) -> Result<Regex, Error> {
    // The pattern is compiled by itself first, because unbalanced parentheses in it could close those around it.
    Regex::new(pattern).and_then(|_| Regex::new(whole)).map_err(|error| Error::Setting {
        field,
        found: format!("{pattern:?}"),
        expected: format!("a regular expression ({})", error.to_string().lines().last().unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &str = "bert.encoder.layer.3.attention.self.query";

    fn matches(target: &str, layer: &str) -> bool {
        let config = AdapterConfig { target_modules: Modules::named(&[target]), ..AdapterConfig::default() };
        Targets::new(&config).expect("a list of names").contains(layer)
    }

    #[test]
    fn names_are_whole_parts() {
        let layer = "bert.encoder.layer.0.attention.output.dense";
        for (target, expected) in [
            ("dense", true),
            ("output.dense", true),
            ("attention.output.dense", true),
            ("ense", false),
            ("output", false),
            (layer, true),
        ] {
            assert_eq!(matches(target, layer), expected, "{target}");
        }
    }

    #[test]
    fn a_string_is_a_pattern_of_the_whole_name() {
        let matches = |pattern: &str, layer: &str| {
            let target_modules = Modules::Pattern(pattern.to_owned());
            Targets::new(&AdapterConfig { target_modules, ..AdapterConfig::default() }).expect(pattern).contains(layer)
        };
        assert!(matches(r".*\.(query|value)", QUERY));
        assert!(matches(r"a|.*query", QUERY), "the alternatives are of the whole");
        assert!(!matches("query", QUERY) && !matches(r"query|.*self", QUERY));
        assert!(matches("all-linear", QUERY) && !matches("all-linear", "bert.pooler.dense"));
    }

    #[test]
    fn layers_are_excluded_and_chosen_by_number() {
        let mut config = AdapterConfig {
            target_modules: Modules::named(&["query", "dense"]),
            exclude_modules: Some(Modules::named(&["intermediate.dense"])),
            layers_to_transform: vec![1, 3],
            ..AdapterConfig::default()
        };
        let contains = |config: &AdapterConfig, layer: &str| Targets::new(config).expect("it is good").contains(layer);
        assert!(contains(&config, QUERY));
        assert!(!contains(&config, "bert.encoder.layer.2.attention.self.query"));
        assert!(!contains(&config, "bert.encoder.layer.3.intermediate.dense"));
        assert!(!contains(&config, "bert.pooler.dense"), "it has no number");
        config.exclude_modules = Some(Modules::Pattern(r".*\.self\..*".to_owned()));
        assert!(!contains(&config, QUERY) && contains(&config, "bert.encoder.layer.3.intermediate.dense"));
        config.exclude_modules = None;
        config.layers_pattern = vec!["(h|blocks)".to_owned()];
        assert!(!contains(&config, QUERY) && contains(&config, "model.blocks.3.query"));
    }

    #[test]
    fn the_first_pattern_gives_the_rank_and_the_scale() {
        let config: AdapterConfig = serde_json::from_str(
            r#"{"rank": 4, "alpha": 16, "rank_pattern": {"value": 2, "self.query": 8, "query": 16}, "alpha_pattern": {"layer.3.*": 32}}"#,
        )
        .expect("a config");
        let targets = Targets::new(&config).expect("patterns");
        assert_eq!(targets.shape(QUERY), (16, 2.0));
        assert_eq!(targets.shape("bert.encoder.layer.2.attention.self.value"), (2, 8.0));
        assert_eq!(targets.shape("bert.encoder.layer.2.attention.self.key"), (4, 4.0));
    }

    #[test]
    fn scales_are_peft_s() {
        assert_eq!(Variant::Lora.scale(4, 16.0), 4.0);
        assert_eq!(Variant::Dora.scale(4, 16.0), 4.0);
        assert_eq!(Variant::Rslora.scale(4, 16.0), 8.0);
        assert_eq!(Variant::Rsdora.scale(4, 16.0), 8.0);
    }
}
