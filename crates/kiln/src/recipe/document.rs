//! A recipe's text and its overrides as one TOML document that keeps the location of each key and value.

use std::ops::Range;

use kiln_hub::DatasetFile;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::RecipeError;
use super::explain;

/// Parses `text`, applies assignments (`KEY=VALUE`) to it, and deserializes a `T` from the result. The overrides of the
/// command line are applied first, then the assignments of a sweep. `name` is the name of the text in errors.
pub fn read<T: DeserializeOwned>(
    name: &str,
    text: &str,
    (overrides, swept): (&[String], &[String]),
) -> Result<(T, Places), RecipeError> {
    let mut places = Places { name: name.to_owned(), text: text.to_owned(), overrides: Vec::new(), keys: Vec::new() };
    let mut document = DeTable::parse(text).map_err(|error| {
        let what = format!("not valid TOML: {}", error.message());
        places.error_at(error.span().map_or(0, |span| span.start), what)
    })?;

    // Each override is padded with as many spaces as there is text before it. Its spans then continue where those of the
    // text end, so that a span alone identifies its origin.
    let mut start = text.len() + 1;
    let mut documents = Vec::with_capacity(overrides.len() + swept.len());
    let labelled =
        overrides.iter().map(|setting| (setting, "--set")).chain(swept.iter().map(|setting| (setting, "sweep:")));
    for (setting, label) in labelled {
        places.overrides.push((start, format!("{label} {setting}")));
        let padded = assignment(setting, start).ok_or_else(|| {
            places.error_at(start, "expected KEY=VALUE, where KEY is a recipe's key such as `train.epochs`".to_owned())
        })?;
        start = padded.len() + 1;
        documents.push(padded);
    }
    for (number, padded) in documents.iter().enumerate() {
        let mut table = DeTable::parse(padded).expect("`assignment` has parsed it");
        if number < overrides.len() {
            make_absolute("", table.get_mut()).map_err(|what| places.error_at(padded.len(), what))?;
        }
        merge(document.get_mut(), table.into_inner())
            .map_err(|(start, key)| places.error_at(start, format!("`{key}` cannot be both a table and a value")))?;
    }

    places.collect("", document.get_ref());
    let value = T::deserialize(Deserializer::from(document)).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        places.error_at(span.start, explain::message::<T>(error.message(), places.key_at(&span)))
    })?;
    Ok((value, places))
}

/// `KEY=VALUE` as a line of TOML after `padding` spaces. A value that is not valid TOML is taken as a string.
fn assignment(setting: &str, padding: usize) -> Option<String> {
    let (key, value) = setting.split_once('=')?;
    let padding = " ".repeat(padding);
    let quoted = toml::Value::String(value.trim().to_owned());
    [format!("{padding}{setting}"), format!("{padding}{key}={quoted}")]
        .into_iter()
        .find(|line| DeTable::parse(line).is_ok_and(|table| !table.get_ref().is_empty()))
}

/// The keys whose values are paths.
const PATHS: [&str; 8] = [
    "data.train",
    "data.validation",
    "data.test",
    "data.files",
    "distill.unlabelled",
    "masking.words",
    "distill.teacher",
    "model.source",
];
/// The paths among them that are sources of models.
const SOURCES: [&str; 2] = ["distill.teacher", "model.source"];

/// Makes the paths of an override absolute. They are relative to the working folder, but the paths of a recipe file are
/// relative to the file's folder.
fn make_absolute(table: &str, entries: &mut DeTable<'_>) -> Result<(), String> {
    for (name, value) in entries.iter_mut() {
        let key = explain::join(table, name.get_ref());
        match value.get_mut() {
            DeValue::Table(entries) => make_absolute(&key, entries)?,
            DeValue::String(text) if PATHS.contains(&&*key) => *text = absolute(&key, text)?.into(),
            DeValue::Array(values) if PATHS.contains(&&*key) => {
                for value in values.iter_mut() {
                    if let DeValue::String(text) = value.get_mut() {
                        *text = absolute(&key, text)?.into();
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes a path absolute. Anything else is returned unchanged.
fn absolute(key: &str, text: &str) -> Result<String, String> {
    let (prefix, path) = match (SOURCES.contains(&key), text.strip_prefix("dir:")) {
        (true, Some(path)) => ("dir:", path),
        (true, None) => return Ok(text.to_owned()),
        (false, _) => ("", text),
    };
    if path.is_empty() || DatasetFile::is_meant(path) {
        return Ok(text.to_owned());
    }
    let absolute =
        std::path::absolute(path).map_err(|error| format!("`{key}`: no absolute path for `{path}`: {error}"))?;
    match absolute.to_str() {
        Some(absolute) => Ok(format!("{prefix}{absolute}")),
        None => Err(format!("`{key}`: the path of the working folder is not UTF-8")),
    }
}

/// Merges `over` into `base`: tables are merged, values are replaced. The error is a key that is a table in one and a value
/// in the other, with its position in `over`.
fn merge<'t>(base: &mut DeTable<'t>, over: DeTable<'t>) -> Result<(), (usize, String)> {
    for (key, value) in over {
        let span = value.span();
        match (base.get_mut(key.get_ref().as_ref()).map(Spanned::get_mut), value.into_inner()) {
            (Some(DeValue::Table(old)), DeValue::Table(new)) => {
                merge(old, new).map_err(|(start, rest)| (start, explain::join(key.get_ref(), &rest)))?;
            }
            (Some(DeValue::Table(_)), _) | (Some(_), DeValue::Table(_)) => {
                return Err((key.span().start, key.into_inner().into_owned()));
            }
            (_, value) => {
                // An insertion alone would keep the old key and its position.
                base.remove(key.get_ref().as_ref());
                base.insert(key, Spanned::new(span, value));
            }
        }
    }
    Ok(())
}

/// The locations of the keys of a document.
#[derive(Debug)]
pub struct Places {
    name: String,
    text: String,
    /// The start of each assignment, and its name in errors.
    overrides: Vec<(usize, String)>,
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    /// The dotted key, such as `train.epochs`.
    path: String,
    name: Range<usize>,
    value: Range<usize>,
    is_table: bool,
}

impl Places {
    /// An error located at a key, or at the closest enclosing table that exists.
    pub fn error(&self, key: &str, what: impl Into<String>) -> RecipeError {
        let mut path = key;
        loop {
            if let Some(key) = self.keys.iter().find(|key| key.path == path) {
                return self.error_at(key.name.start, what.into());
            }
            match path.rsplit_once('.') {
                Some((table, _)) => path = table,
                None => return self.error_at(0, what.into()),
            }
        }
    }

    fn error_at(&self, start: usize, what: String) -> RecipeError {
        let place = match self.overrides.iter().rfind(|(first, _)| *first <= start) {
            Some((_, assignment)) => assignment.clone(),
            None => {
                let before = &self.text.as_bytes()[..start.min(self.text.len())];
                let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
                format!("{}, line {line}", self.name)
            }
        };
        RecipeError::Invalid { place, what }
    }

    /// The key whose name or value is at `span`; empty for the whole document, which has an empty span.
    fn key_at(&self, span: &Range<usize>) -> &str {
        let holds = |range: &Range<usize>| !span.is_empty() && range.start <= span.start && span.end <= range.end;
        self.keys
            .iter()
            // The span may also be an element of a list. The contents of a table have keys of their own.
            .find(|key| holds(&key.name) || if key.is_table { key.value == *span } else { holds(&key.value) })
            .map_or("", |key| &key.path)
    }

    fn collect(&mut self, table: &str, entries: &DeTable<'_>) {
        for (name, value) in entries {
            let path = explain::join(table, name.get_ref());
            if let DeValue::Table(entries) = value.get_ref() {
                self.collect(&path, entries);
            }
            let is_table = matches!(value.get_ref(), DeValue::Table(_));
            self.keys.push(Key { path, name: name.span(), value: value.span(), is_table });
        }
    }
}
