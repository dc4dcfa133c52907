//! Changes to any file: flipped bits, extreme integers, and ranges that are removed, repeated or appended.

use rand::RngExt;
use rand::rngs::StdRng;

use super::{Change, pick};

/// Integers of 8 bytes that often break counts, lengths and offsets.
const INTEGERS: [i64; 18] = [
    0,
    1,
    -1,
    -2,
    127,
    128,
    255,
    65_535,
    65_536,
    i32::MAX as i64,
    i32::MIN as i64,
    u32::MAX as i64,
    u32::MAX as i64 + 1,
    1 << 40,
    1 << 50,
    1 << 58,
    i64::MAX,
    i64::MIN,
];

/// Changes a file at random.
pub fn mutate(bytes: &[u8], rng: &mut StdRng) -> Change {
    if bytes.is_empty() {
        return Change::new(vec![rng.random()], "a byte in an empty file");
    }
    match rng.random_range(0..12) {
        0..=2 => flip(bytes, rng),
        3 => set_byte(bytes, rng),
        4..=6 => integer(bytes, rng),
        7..=8 => truncate(bytes, rng),
        9 => remove(bytes, rng),
        10 => repeat(bytes, rng),
        _ => whole(bytes, rng),
    }
}

fn flip(bytes: &[u8], rng: &mut StdRng) -> Change {
    let (at, bit) = (rng.random_range(0..bytes.len()), rng.random_range(0..8));
    let mut changed = bytes.to_vec();
    changed[at] ^= 1 << bit;
    Change::new(changed, format!("bit {bit} of byte {at} flipped"))
}

fn set_byte(bytes: &[u8], rng: &mut StdRng) -> Change {
    let at = rng.random_range(0..bytes.len());
    let value = *pick(rng, &[0, 1, 0x7f, 0x80, 0xfe, 0xff]);
    let mut changed = bytes.to_vec();
    changed[at] = value;
    Change::new(changed, format!("byte {at} set to {value:#04x}"))
}

/// Replaces an aligned little-endian integer, as in FlatBuffers, zip and safetensors.
fn integer(bytes: &[u8], rng: &mut StdRng) -> Change {
    let width = *pick(rng, &[2, 4, 8]);
    let at = rng.random_range(0..bytes.len()) / width * width;
    let value = *pick(rng, &INTEGERS);
    let mut changed = bytes.to_vec();
    let end = changed.len().min(at + width);
    changed[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
    Change::new(changed, format!("{width} bytes at {at} set to {value}"))
}

/// Keeps only the beginning of a file.
pub fn truncate(bytes: &[u8], rng: &mut StdRng) -> Change {
    let length = rng.random_range(0..bytes.len());
    Change { truncated: true, ..Change::new(bytes[..length].to_vec(), format!("cut off at byte {length}")) }
}

fn remove(bytes: &[u8], rng: &mut StdRng) -> Change {
    let (start, end) = range(bytes, rng);
    let changed = [&bytes[..start], &bytes[end..]].concat();
    Change::new(changed, format!("bytes {start}..{end} removed"))
}

fn repeat(bytes: &[u8], rng: &mut StdRng) -> Change {
    let (start, end) = range(bytes, rng);
    let changed = [&bytes[..end], &bytes[start..]].concat();
    Change::new(changed, format!("bytes {start}..{end} repeated"))
}

fn whole(bytes: &[u8], rng: &mut StdRng) -> Change {
    match rng.random_range(0..4) {
        0 => Change { truncated: true, ..Change::new(Vec::new(), "emptied") },
        1 => Change::new([bytes, bytes].concat(), "appended to itself"),
        2 => Change::new(vec![0; bytes.len()], "filled with zeros"),
        _ => {
            let more: Vec<u8> = (0..rng.random_range(1..64)).map(|_| rng.random()).collect();
            Change::new([bytes, &more].concat(), format!("{} random bytes appended", more.len()))
        }
    }
}

fn range(bytes: &[u8], rng: &mut StdRng) -> (usize, usize) {
    let start = rng.random_range(0..bytes.len());
    let most = (bytes.len() - start).min(64);
    (start, start + rng.random_range(1..=most))
}
