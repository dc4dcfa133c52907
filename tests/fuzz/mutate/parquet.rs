//! Changes to the metadata of Parquet files, whose integers have variable length in Thrift's compact protocol.

use rand::RngExt;
use rand::rngs::StdRng;

use super::{Change, pick};

const MAGIC: &[u8] = b"PAR1";

/// Replaces an integer of the footer or of a page header, and corrects the footer's length.
pub fn mutate(bytes: &[u8], rng: &mut StdRng) -> Option<Change> {
    let (body, tail) = bytes.split_at_checked(bytes.len().checked_sub(8)?)?;
    let length = u32::from_le_bytes(*tail.first_chunk()?) as usize;
    let (pages, footer) = body.split_at_checked(body.len().checked_sub(length)?)?;
    let in_footer = rng.random_bool(0.8);
    // Page headers are between the data.
    let part = if in_footer { footer } else { pages };
    if part.is_empty() {
        return None;
    }
    let at = rng.random_range(0..part.len());
    let rest = part[at..].iter().position(|byte| byte & 0x80 == 0).map_or(part.len(), |end| at + end + 1);
    let (value, name) = *pick(
        rng,
        &[
            (0, "0"),
            (1, "-1"),
            (2, "1"),
            (8, "4"),
            (10, "5"),
            (46, "23"),
            (48, "24"),
            ((1 << 32) - 2, "2³¹-1"),
            (1 << 32, "2³¹"),
            (1 << 41, "2⁴⁰"),
            (1 << 51, "2⁵⁰"),
            (u64::MAX - 1, "2⁶³-1"),
            (u64::MAX, "-2⁶³"),
        ],
    );
    let changed = [&part[..at], &varint(value), &part[rest..]].concat();
    let where_ = if in_footer { "footer" } else { "pages" };
    let (pages, footer) = if in_footer { (pages, changed.as_slice()) } else { (changed.as_slice(), footer) };
    let length = (footer.len() as u32).to_le_bytes();
    let whole = [pages, footer, &length, MAGIC].concat();
    Some(Change::new(whole, format!("the integer at {at} of the {where_} is {name}")))
}

/// Encodes an integer with seven bits per byte, lowest first.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
