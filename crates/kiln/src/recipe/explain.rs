//! Turns serde's error messages into messages for the author of a recipe.

use serde::de::DeserializeOwned;

/// The message for an error while reading a `T`. `key` is where it occurred, empty for the whole document.
pub fn message<T: DeserializeOwned>(message: &str, key: &str) -> String {
    if let Some((_, known)) = unknown_field(message) {
        return unknown_key(key, &known, &all_keys::<T>());
    }
    if let Some(name) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        return format!("the key `{}` is missing", join(key, name));
    }
    if let Some((found, expected)) =
        message.strip_prefix("unknown variant `").and_then(|rest| rest.rsplit_once("`, expected "))
    {
        return format!("`{key}`: found \"{found}\", expected {expected}");
    }
    if let Some((found, expected)) = ["invalid type: ", "invalid value: ", "invalid length "]
        .iter()
        .find_map(|prefix| message.strip_prefix(prefix))
        .and_then(|rest| rest.rsplit_once(", expected "))
    {
        return format!("`{key}`: found {}, expected {}", plain(found), plain(expected));
    }
    format!("`{key}`: {message}")
}

/// Joins two parts of a dotted key.
pub fn join(table: &str, name: &str) -> String {
    if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") }
}

fn unknown_key(key: &str, siblings: &[String], all: &[String]) -> String {
    let (table, name) = split(key);
    let nearest = all
        .iter()
        .map(|known| {
            let (other, known_name) = split(known);
            let here = other == table;
            // A key of the same table is preferred to an equally near one elsewhere.
            let nearness = strsim::jaro_winkler(name, known_name) + if here { 0.05 } else { 0.0 };
            (nearness, if here { known_name } else { known })
        })
        .filter(|(nearness, _)| *nearness >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((_, known)) => format!("unknown key `{key}`; did you mean `{known}`?"),
        None => format!("unknown key `{key}`; the keys known here are `{}`", siblings.join("`, `")),
    }
}

/// Every key of `T`, taken from serde: a struct that denies unknown fields lists its fields in the error message.
fn all_keys<T: DeserializeOwned>() -> Vec<String> {
    let mut keys = Vec::new();
    let mut tables = vec![String::new()];
    while let Some(table) = tables.pop() {
        let header = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
        // No field is called `?`, so a table fails with its list of fields. Anything else fails with another error and has
        // no keys.
        let Some(error) = toml::from_str::<T>(&format!("{header}'?' = 0")).err() else { continue };
        let Some(("?", names)) = unknown_field(error.message()) else { continue };
        for name in names {
            let key = join(&table, &name);
            keys.push(key.clone());
            tables.push(key);
        }
    }
    keys
}

/// The unknown field and the known fields of "unknown field `a`, expected one of `b`, `c`".
fn unknown_field(message: &str) -> Option<(&str, Vec<String>)> {
    let (found, expected) = message.strip_prefix("unknown field `")?.rsplit_once("`, expected ")?;
    Some((found, expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()))
}

/// The last part of a dotted key, and the parts before it.
fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

/// The TOML name for serde's name of a type.
fn plain(serde: &str) -> &str {
    match serde {
        "map" => "a table",
        "sequence" => "a list",
        "a sequence" => "a list",
        "path string" => "a path in quotes",
        "a boolean" => "true or false",
        "i64" => "a whole number",
        "usize" | "u64" => "a whole number of at least 0",
        "f32" | "f64" => "a number",
        _ if serde.starts_with("struct ") => "a table",
        _ => serde,
    }
}
