//! Changes to PyTorch files: an uncompressed zip archive with a pickle of shapes, strides and offsets.

use rand::RngExt;
use rand::rngs::StdRng;

use super::{Change, pick};

/// Changes an integer or a byte of the pickle, and corrects the checksums of the archive so that the change is read.
pub fn mutate(bytes: &[u8], rng: &mut StdRng) -> Option<Change> {
    let mut changed = bytes.to_vec();
    let header =
        find(bytes, b"PK\x03\x04", |at| name(bytes, at, 26, 30).is_some_and(|name| name.ends_with(b"data.pkl")))?;
    let entry =
        find(bytes, b"PK\x01\x02", |at| name(bytes, at, 28, 46).is_some_and(|name| name.ends_with(b"data.pkl")))?;
    let start = header + 30 + usize::from(u16_at(bytes, header + 26)?) + usize::from(u16_at(bytes, header + 28)?);
    let size = u32::from_le_bytes(*bytes.get(entry + 24..)?.first_chunk()?) as usize;
    let pickle = changed.get_mut(start..start + size)?;
    let what = if rng.random_bool(0.7) { integer(pickle, rng)? } else { byte(pickle, rng)? };
    let sum = crc32fast::hash(pickle).to_le_bytes();
    changed[entry + 16..entry + 20].copy_from_slice(&sum);
    // If the sizes follow the data, so does the checksum.
    match u16_at(bytes, header + 6)? & 8 {
        0 => changed[header + 14..header + 18].copy_from_slice(&sum),
        _ => {
            let at = find(&bytes[start + size..], b"PK\x07\x08", |_| true)? + start + size;
            changed[at + 4..at + 8].copy_from_slice(&sum);
        }
    }
    Some(Change::new(changed, format!("pickle: {what}")))
}

/// Replaces an operand of `K` (one byte), `M` (two) or `J` (four).
fn integer(pickle: &mut [u8], rng: &mut StdRng) -> Option<String> {
    let places: Vec<usize> = (0..pickle.len().saturating_sub(5)).filter(|&at| b"KMJ".contains(&pickle[at])).collect();
    let at = *places.get(rng.random_range(0..places.len().max(1)))?;
    let width = match pickle[at] {
        b'K' => 1,
        b'M' => 2,
        _ => 4,
    };
    let value = *pick(rng, &[0i32, 1, 2, 3, 7, 24, 255, 65_535, -1, i32::MAX, i32::MIN]);
    pickle[at + 1..=at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    Some(format!("the integer at {at} is {value}"))
}

fn byte(pickle: &mut [u8], rng: &mut StdRng) -> Option<String> {
    let at = rng.random_range(0..pickle.len().max(1));
    let value: u8 = rng.random();
    *pickle.get_mut(at)? = value;
    Some(format!("byte {at} is {value:#04x}"))
}

fn find(bytes: &[u8], signature: &[u8], is_meant: impl Fn(usize) -> bool) -> Option<usize> {
    let mut places = bytes.windows(signature.len()).enumerate().filter(|(_, window)| *window == signature);
    places.find(|(at, _)| is_meant(*at)).map(|(at, _)| at)
}

/// The name in a header, with its length at offset `length` and its text at offset `start`.
fn name(bytes: &[u8], header: usize, length: usize, start: usize) -> Option<&[u8]> {
    let length = usize::from(u16_at(bytes, header + length)?);
    bytes.get(header + start..header + start + length)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
