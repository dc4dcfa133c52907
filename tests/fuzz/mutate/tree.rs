//! Changes to JSON and TOML documents: extreme values, other types, and keys that are removed, renamed or duplicated.

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::Value;

use super::{Change, pick};

/// Values in JSON syntax, including invalid ones.
const JSON: [&str; 44] = [
    "0",
    "-1",
    "1",
    "2",
    "3",
    "7",
    "127",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "1099511627776",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "0.5",
    "1.0",
    "2.0",
    "-0.0",
    "5e-324",
    "1e38",
    "1e308",
    "-1e308",
    "1e400",
    "NaN",
    "null",
    "true",
    "false",
    "\"\"",
    "\"x\"",
    "\"[UNK]\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"😀\"",
    "[]",
    "{}",
    "[0]",
    "[[]]",
];

/// Values in TOML syntax, including invalid ones.
const TOML: [&str; 27] = [
    "0",
    "-1",
    "1",
    "2",
    "3",
    "2147483648",
    "4294967296",
    "1099511627776",
    "288230376151711744",
    "9223372036854775807",
    "9223372036854775808",
    "0.5",
    "1.5",
    "1e38",
    "1e308",
    "inf",
    "-inf",
    "nan",
    "true",
    "false",
    "\"\"",
    "\"x\"",
    "\"\\u0000\"",
    "[]",
    "{}",
    "[0]",
    "1979-05-27",
];

/// Words from the files of Kiln and transformers. As keys and values, they reach more code than random words.
const WORDS: [&str; 66] = [
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
    "pad_token_id",
    "classifier_dropout",
    "embedding_size",
    "num_hidden_groups",
    "inner_group_num",
    "layer_types",
    "rope_parameters",
    "local_attention",
    "albert",
    "modernbert",
    "problem_type",
    "num_labels",
    "id2label",
    "label2id",
    "architectures",
    "kiln_head",
    "task",
    "pooling",
    "hidden_layers",
    "crf",
    "units",
    "tag_scheme",
    "tie_word_embeddings",
    "model_max_length",
    "do_lower_case",
    "regression",
    "multi_label_classification",
    "single_label_classification",
    "token-classification",
    "sequence-classification",
    "question-answering",
    "masked-lm",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertForQuestionAnswering",
    "BertForMaskedLM",
    "BertForPreTraining",
    "cls",
    "mean",
    "pooler",
    "gelu",
    "gelu_new",
    "relu",
    "silu",
    "tanh",
    "characters",
    "words",
    "WordPiece",
    "Unigram",
    "BPE",
    "Replace",
    "Sequence",
    "unk_token",
    "pad_token",
    "split",
    "epochs",
];

/// The syntax of a document: its replacement values, and how a tree is written.
struct Language {
    values: &'static [&'static str],
    write: fn(&Value) -> Option<String>,
}

/// Changes a JSON document; `None` if it is invalid.
pub fn mutate_json(bytes: &[u8], rng: &mut StdRng) -> Option<Change> {
    let language = Language { values: &JSON, write: |tree| serde_json::to_string_pretty(tree).ok() };
    mutate(serde_json::from_slice(bytes).ok()?, &language, rng)
}

/// Changes one line of JSON Lines.
pub fn mutate_jsonl(bytes: &[u8], rng: &mut StdRng) -> Option<Change> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let at = rng.random_range(0..lines.len().max(1));
    let language = Language { values: &JSON, write: |tree| serde_json::to_string(tree).ok() };
    let change = mutate(serde_json::from_str(lines.get(at)?).ok()?, &language, rng)?;
    lines[at] = String::from_utf8(change.bytes).ok()?;
    Some(Change::new(lines.join("\n"), format!("line {}: {}", at + 1, change.what)))
}

/// Changes a TOML document.
pub fn mutate_toml(bytes: &[u8], rng: &mut StdRng) -> Option<Change> {
    let table: toml::Table = toml::from_str(std::str::from_utf8(bytes).ok()?).ok()?;
    let language = Language { values: &TOML, write: |tree| toml::to_string(tree).ok() };
    mutate(serde_json::to_value(table).ok()?, &language, rng)
}

/// The largest number of bytes that one repetition may add.
const LARGEST: usize = 16 << 20;

/// A placeholder in the tree for text that is not a valid value. It is replaced when the tree is written.
const HOLE: &str = "@@hole@@";

fn mutate(mut tree: Value, language: &Language, rng: &mut StdRng) -> Option<Change> {
    let mut paths = Vec::new();
    collect(&tree, String::new(), &mut paths);
    let path = pick(rng, &paths).clone();
    let (hole, what) = match rng.random_range(0..12) {
        0..=4 => replace(&mut tree, &path, language, rng)?,
        5 => arithmetic(&mut tree, &path, rng)?,
        6 => remove(&mut tree, &path)?,
        7 => rename(&mut tree, &path, rng)?,
        8 => insert(&mut tree, &path, language, rng)?,
        9 => repeat(&mut tree, &path, rng)?,
        10 => nest(&mut tree, &path, rng)?,
        _ => swap(&mut tree, &path, &paths, rng)?,
    };
    let mut text = (language.write)(&tree)?;
    for quote in ['"', '\''] {
        text = text.replace(&format!("{quote}{HOLE}{quote}"), &hole);
    }
    Some(Change::new(text, what))
}

/// Collects the JSON pointers of all values except the root.
fn collect(value: &Value, path: String, paths: &mut Vec<String>) {
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = format!("{path}/{}", escaped(key));
                paths.push(path.clone());
                collect(value, path, paths);
            }
        }
        Value::Array(values) => {
            for (at, value) in values.iter().enumerate() {
                let path = format!("{path}/{at}");
                paths.push(path.clone());
                collect(value, path, paths);
            }
        }
        _ => {}
    }
    if path.is_empty() && paths.is_empty() {
        paths.push(path);
    }
}

/// The text that replaces [`HOLE`], and a description of the change.
type Done = Option<(String, String)>;

fn any_value(language: &Language, rng: &mut StdRng) -> String {
    match rng.random_range(0..6) {
        0 => format!("{:?}", pick(rng, &WORDS)),
        1 => format!("\"{}\"", "a".repeat(rng.random_range(1..100_000))),
        _ => (*pick(rng, language.values)).to_owned(),
    }
}

fn replace(tree: &mut Value, path: &str, language: &Language, rng: &mut StdRng) -> Done {
    let new = any_value(language, rng);
    *tree.pointer_mut(path)? = HOLE.into();
    let shown: String = new.chars().take(60).collect();
    Some((new, format!("{path} = {shown}")))
}

/// Replaces a number with a near one, or with another notation of it.
fn arithmetic(tree: &mut Value, path: &str, rng: &mut StdRng) -> Done {
    let value = tree.pointer_mut(path)?;
    let number = value.as_f64()?;
    let new = match rng.random_range(0..7) {
        0 => (number + 1.0).to_string(),
        1 => (number - 1.0).to_string(),
        2 => (number * 2.0).to_string(),
        3 => (-number).to_string(),
        4 => format!("{number:.1}"),
        5 => format!("{number:e}"),
        _ => format!("\"{number}\""),
    };
    *value = HOLE.into();
    let what = format!("{path} = {new}");
    Some((new, what))
}

fn parent<'a>(tree: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (parent, key) = path.rsplit_once('/')?;
    Some((tree.pointer_mut(parent)?, key.replace("~1", "/").replace("~0", "~")))
}

fn remove(tree: &mut Value, path: &str) -> Done {
    match parent(tree, path)? {
        (Value::Object(map), key) => drop(map.remove(&key)?),
        (Value::Array(values), at) => drop(values.remove(at.parse().ok()?)),
        _ => return None,
    }
    Some((String::new(), format!("{path} removed")))
}

fn rename(tree: &mut Value, path: &str, rng: &mut StdRng) -> Done {
    let (Value::Object(map), key) = parent(tree, path)? else { return None };
    let new = match rng.random_range(0..3) {
        0 => format!("{key}x"),
        1 => key.to_uppercase(),
        _ => (*pick(rng, &WORDS)).to_owned(),
    };
    let value = map.remove(&key)?;
    map.insert(new.clone(), value);
    Some((String::new(), format!("{path} renamed to {new:?}")))
}

/// Adds a new key, or an existing key a second time.
fn insert(tree: &mut Value, path: &str, language: &Language, rng: &mut StdRng) -> Done {
    let (Value::Object(map), key) = parent(tree, path)? else { return None };
    let value = any_value(language, rng);
    if rng.random_bool(0.5) {
        let word = *pick(rng, &WORDS);
        map.insert(word.to_owned(), HOLE.into());
        let shown: String = value.chars().take(60).collect();
        return Some((value, format!("{word:?} = {shown} beside {path}")));
    }
    // The placeholder is a key here, and is replaced with the name of the existing key.
    map.insert(HOLE.to_owned(), map.get(&key)?.clone());
    Some((format!("{key:?}"), format!("{path} twice")))
}

/// Repeats a value many times; in an object, each copy has its own key. After earlier changes the copies could fill the
/// memory, so nothing larger than [`LARGEST`] is made.
fn repeat(tree: &mut Value, path: &str, rng: &mut StdRng) -> Done {
    let count = *pick(rng, &[1, 2, 100, 10_000]);
    let copy = path.len() + tree.pointer(path)?.to_string().len();
    if copy.saturating_mul(count) > LARGEST {
        return None;
    }
    match parent(tree, path)? {
        (Value::Array(values), at) => {
            let value = values.get(at.parse::<usize>().ok()?)?.clone();
            values.extend(std::iter::repeat_n(value, count));
        }
        (Value::Object(map), key) => {
            let value = map.get(&key)?.clone();
            map.extend((0..count).map(|at| (format!("{key}{at}"), value.clone())));
        }
        _ => return None,
    }
    Some((String::new(), format!("{path} {count} more times")))
}

fn nest(tree: &mut Value, path: &str, rng: &mut StdRng) -> Done {
    let depth = *pick(rng, &[1, 2, 100, 126, 200, 100_000]);
    let value = tree.pointer_mut(path)?;
    let (open, close) = if rng.random_bool(0.7) { ("[", "]") } else { ("{\"a\":", "}") };
    let inner = value.to_string();
    *value = HOLE.into();
    Some((format!("{}{inner}{}", open.repeat(depth), close.repeat(depth)), format!("{path} in {depth} of {open}")))
}

fn swap(tree: &mut Value, path: &str, paths: &[String], rng: &mut StdRng) -> Done {
    let other = pick(rng, paths);
    let value = tree.pointer(other)?.clone();
    *tree.pointer_mut(path)? = value;
    Some((String::new(), format!("{path} = that of {other}")))
}
