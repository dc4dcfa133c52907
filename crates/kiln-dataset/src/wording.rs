//! Parts of messages.

use crate::Encoding;

/// The name most similar to `word`, if it is similar enough to be a misspelling.
fn nearest<'a>(word: &str, names: &'a [String]) -> Option<&'a str> {
    let word = word.trim().to_lowercase();
    let allowed = (word.chars().count() / 3).max(1);
    names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&word, &name.trim().to_lowercase()), name))
        .filter(|(distance, name)| *distance <= allowed && *distance < name.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name.as_str())
}

pub(crate) fn hint(word: &str, names: &[String]) -> String {
    nearest(word, names).map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}

/// The names, cut to the first twenty: a data set can have thousands of labels.
pub(crate) fn list(names: &[String]) -> String {
    const SHOWN: usize = 20;
    if names.is_empty() {
        return "none".to_owned();
    }
    let shown: Vec<_> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(SHOWN);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &rest
}

pub(crate) fn asked(split: Option<&str>) -> String {
    match split {
        Some(split) => format!("there is no split `{split}`"),
        None => "no split is selected".to_owned(),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

pub(crate) fn encoding_hint(likely: Option<Encoding>) -> String {
    match likely {
        Some(likely) => format!("the file looks like {likely}: set `encoding = \"{}\"`", likely.name()),
        None => "the file is damaged or has another encoding: set `encoding`, for example to `gbk`, `windows-1252` or `utf-16le`".to_owned(),
    }
}

pub(crate) fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// `1 row`, `2 rows`.
pub(crate) fn counted(what: &str, count: usize) -> String {
    format!("{count} {what}{}", plural(count))
}

/// What to do when a row has too many fields.
pub(crate) fn separator_hint(separator: char) -> &'static str {
    match separator {
        '\t' => "if a text contains a tab, replace the tab; otherwise remove the extra fields",
        _ => "if a text contains a comma, put the text in double quotes; otherwise remove the extra fields",
    }
}
