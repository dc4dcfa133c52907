//! Changes to safetensors files: the JSON header, its size, and the numbers after it.

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};

use super::{Change, pick, tree};

/// A parsed file.
struct File {
    header: Map<String, Value>,
    data: Vec<u8>,
}

impl File {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (size, rest) = bytes.split_first_chunk::<8>()?;
        let (header, data) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*size)).ok()?)?;
        Some(Self { header: serde_json::from_slice(header).ok()?, data: data.to_vec() })
    }

    fn names(&self) -> Vec<String> {
        self.header.keys().filter(|name| *name != "__metadata__").cloned().collect()
    }

    fn write(&self) -> Vec<u8> {
        write(&Value::Object(self.header.clone()).to_string(), &self.data)
    }

    /// The byte range of a tensor.
    fn range(&self, name: &str) -> Option<std::ops::Range<usize>> {
        let offsets = self.header.get(name)?.get("data_offsets")?;
        Some(offsets.get(0)?.as_u64()? as usize..offsets.get(1)?.as_u64()? as usize)
    }
}

/// A file with a header and data.
pub fn write(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// Changes a file; `None` if it is not a safetensors file.
pub fn mutate(bytes: &[u8], rng: &mut StdRng) -> Option<Change> {
    let file = File::parse(bytes).filter(|file| !file.names().is_empty())?;
    match rng.random_range(0..10) {
        0..=2 => {
            let change = tree::mutate_json(Value::Object(file.header).to_string().as_bytes(), rng)?;
            let header = String::from_utf8(change.bytes).ok()?;
            Some(Change::new(write(&header, &file.data), format!("header: {}", change.what)))
        }
        3 => note(file, rng),
        4..=5 => numbers(file, rng),
        6 => reshape(file, rng),
        7 => names(file, rng),
        8 => add(file, rng),
        _ => size(bytes, rng),
    }
}

fn size(bytes: &[u8], rng: &mut StdRng) -> Option<Change> {
    let size =
        *pick(rng, &[0, 1, 2, 7, 100 << 20, u64::from(u32::MAX), 1 << 40, i64::MAX as u64, u64::MAX - 7, u64::MAX]);
    let mut changed = bytes.to_vec();
    changed.get_mut(..8)?.copy_from_slice(&size.to_le_bytes());
    Some(Change::new(changed, format!("a header of {size} bytes")))
}

/// Changes the metadata text: the progress of a checkpoint, which is TOML.
fn note(mut file: File, rng: &mut StdRng) -> Option<Change> {
    let (_, note) = file.header.get_mut("__metadata__")?.as_object_mut()?.iter_mut().next()?;
    let change = tree::mutate_toml(note.as_str()?.as_bytes(), rng)?;
    *note = String::from_utf8(change.bytes).ok()?.into();
    Some(Change::new(file.write(), format!("note: {}", change.what)))
}

/// Replaces one number of an f32 tensor, or all of them.
fn numbers(mut file: File, rng: &mut StdRng) -> Option<Change> {
    let name = pick(rng, &file.names()).clone();
    let range = file.range(&name)?;
    let number = *pick(rng, &[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e30, -1e30, 1e-45, 0.0]);
    let mut numbers: Vec<&mut [u8; 4]> = file.data.get_mut(range)?.as_chunks_mut().0.iter_mut().collect();
    if numbers.is_empty() {
        return None;
    }
    let all = rng.random_bool(0.5);
    let chosen = rng.random_range(0..numbers.len());
    for (at, bytes) in numbers.iter_mut().enumerate() {
        if all || at == chosen {
            **bytes = number.to_le_bytes();
        }
    }
    let which = if all { "every number".to_owned() } else { format!("number {chosen}") };
    Some(Change::new(file.write(), format!("{which} of {name} is {number}")))
}

/// Gives a tensor a wrong shape with the same number of values.
fn reshape(mut file: File, rng: &mut StdRng) -> Option<Change> {
    let name = pick(rng, &file.names()).clone();
    let shape = file.header.get_mut(&name)?.get_mut("shape")?;
    let old: Vec<u64> = serde_json::from_value(shape.clone()).ok()?;
    let new = match (old.as_slice(), rng.random_range(0..3)) {
        ([rows, columns], 0) if rows != columns => vec![*columns, *rows],
        (_, 1) => [old.as_slice(), &[1]].concat(),
        _ => [&[1], old.as_slice()].concat(),
    };
    *shape = json!(new);
    let changed = Change::new(file.write(), format!("{name} is {new:?}, not {old:?}"));
    // Some models do not read the pooler.
    Some(Change { reshaped: !name.contains("pooler"), ..changed })
}

/// Swaps the names of two tensors, renames a tensor, or removes one.
fn names(mut file: File, rng: &mut StdRng) -> Option<Change> {
    let names = file.names();
    let (first, second) = (pick(rng, &names).clone(), pick(rng, &names).clone());
    let value = file.header.remove(&first)?;
    let what = match rng.random_range(0..3) {
        0 => format!("{first} left out"),
        1 => {
            let new = first.replace("weight", "gamma").replace("bias", "beta").replace("bert.", "");
            file.header.insert(new.clone(), value);
            format!("{first} renamed to {new}")
        }
        _ => {
            let other = file.header.insert(second.clone(), value).unwrap_or_default();
            file.header.insert(first.clone(), other);
            format!("{first} and {second} swapped")
        }
    };
    Some(Change::new(file.write(), what))
}

/// Adds a copy of a tensor with other numbers under another name, such as an older name of the parameter.
fn add(mut file: File, rng: &mut StdRng) -> Option<Change> {
    let name = pick(rng, &file.names()).clone();
    let mut info = file.header.get(&name)?.clone();
    let length = file.range(&name)?.len();
    let start = file.data.len();
    info["data_offsets"] = json!([start, start + length]);
    file.data.resize(start + length, 0x3f);
    let new = match rng.random_range(0..4) {
        0 => format!("bert.{name}"),
        1 => name.trim_start_matches("bert.").to_owned(),
        _ => name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"),
    };
    if file.header.contains_key(&new) {
        return None;
    }
    file.header.insert(new.clone(), info);
    Some(Change::new(file.write(), format!("{name} a second time, as {new}")))
}
