//! Event files for TensorBoard: records in TensorFlow's TFRecord format, each of them an `Event` protocol buffer.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// An event file that is being written. Each event is written at once, because TensorBoard shows the file while it grows.
/// Readers ignore an incomplete record.
#[derive(Debug)]
pub(crate) struct EventFile {
    file: File,
}

impl EventFile {
    /// Creates a file in a folder, and the folder itself. For a training that resumes after `step` updates, TensorBoard
    /// discards later updates in earlier files.
    pub fn create(folder: &Path, step: usize) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let seconds = now() as u64;
        // The name has to contain `tfevents`. Later starts have names that sort later.
        let path = |number: u64| folder.join(format!("events.out.tfevents.{seconds:010}.{number}.kiln"));
        let free = (0..).map(path).find(|path| !path.exists()).expect("numbers do not end");
        let mut events = Self { file: File::create_new(free)? };
        events.write(&event(0, &bytes_field(3, b"brain.Event:2")))?;
        if step > 0 {
            // `SessionLog` with the status START.
            events.write(&event(step + 1, &bytes_field(7, &varint_field(1, 1))))?;
        }
        Ok(events)
    }

    /// Adds the scalars of a step by their tags, such as `train/loss`.
    pub fn add<'a>(&mut self, step: usize, scalars: impl IntoIterator<Item = (&'a str, f64)>) -> io::Result<()> {
        let value = |(tag, number): (&str, f64)| {
            let mut value = bytes_field(1, tag.as_bytes());
            // `simple_value`, 32 bits.
            value.push(2 << 3 | 5);
            value.extend((number as f32).to_le_bytes());
            bytes_field(1, &value)
        };
        let summary: Vec<u8> = scalars.into_iter().flat_map(value).collect();
        self.write(&event(step, &bytes_field(5, &summary)))
    }

    fn write(&mut self, event: &[u8]) -> io::Result<()> {
        self.file.write_all(&record(event))
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// An `Event` with the current `wall_time`, `step`, and further fields.
fn event(step: usize, what: &[u8]) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend(now().to_le_bytes());
    event.extend(varint_field(2, step as u64));
    event.extend(what);
    event
}

/// A protocol buffer field that holds bytes, a string or a message.
fn bytes_field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    field.extend(varint(bytes.len() as u64));
    field.extend(bytes);
    field
}

/// A protocol buffer field that holds an integer.
fn varint_field(number: u8, value: u64) -> Vec<u8> {
    let mut field = vec![number << 3];
    field.extend(varint(value));
    field
}

/// Seven bits per byte, the lowest first; all bytes but the last have their highest bit set.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// The length, its checksum, the bytes, and their checksum.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length).to_le_bytes(), bytes, &masked_crc(bytes).to_le_bytes()].concat()
}

/// TFRecord masks its checksums, so that a record can safely contain checksums.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit, because an event is only some hundred bytes.
fn crc32c(bytes: &[u8]) -> u32 {
    let with_bit = |crc: u32, _: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), with_bit))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of RFC 3720, appendix B.4, and of the catalogue of parametrised CRC algorithms.
    #[test]
    fn checksums_are_castagnoli_s() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn varints_have_seven_bits_a_byte() {
        assert_eq!(varint(0), [0]);
        assert_eq!(varint(300), [0xac, 0x02]);
        assert_eq!(varint(u64::MAX).len(), 10);
    }

    /// The records of a file end where the file ends, and the checksums are right.
    #[test]
    fn a_file_is_whole_records_and_each_start_has_its_own() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for step in [0, 7] {
            let mut events = EventFile::create(&folder.path().join("events"), step).expect("it is writable");
            events.add(step + 1, [("train/loss", 0.5), ("train/learning_rate", 1e-5)]).expect("it is writable");
        }
        let files = fs::read_dir(folder.path().join("events")).expect("it was made");
        let mut counts = Vec::new();
        for file in files {
            let bytes = fs::read(file.expect("it is listed").path()).expect("it is readable");
            let (mut rest, mut records) = (&bytes[..], 0);
            while !rest.is_empty() {
                let length = u64::from_le_bytes(rest[..8].try_into().expect("eight bytes")) as usize;
                assert_eq!(rest[8..12], masked_crc(&rest[..8]).to_le_bytes());
                let (event, end) = rest[12..].split_at(length);
                assert_eq!(end[..4], masked_crc(event).to_le_bytes());
                (rest, records) = (&end[4..], records + 1);
            }
            counts.push(records);
        }
        counts.sort_unstable();
        assert_eq!(counts, [2, 3]);
    }
}
