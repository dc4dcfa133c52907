//! Checks the sizes that an Arrow IPC file claims against the size of the file. Polars allocates the claimed size
//! before it reads, and a failed allocation ends the process.

use std::io::{self, Read, Seek, SeekFrom};

use polars_arrow_format::ipc::planus::ReadAsRoot;
use polars_arrow_format::ipc::{Block, MessageHeaderRef, MessageRef, RecordBatchRef};

use crate::bounds::{invalid, most_decompressed, within};

/// Checks each message of a stream, from the start of the reader.
///
/// # Errors
/// An error of kind `InvalidData` when a size is out of bounds.
pub(crate) fn check_stream(reader: &mut (impl Read + Seek)) -> io::Result<()> {
    let end = reader.seek(SeekFrom::End(0))?;
    let mut at = 0;
    while at < end {
        match check_message(reader, at, end)? {
            Message::Body(body) => at = body.start + body.length,
            // Polars would ignore the rest of the file without an error.
            Message::EndOfStream(after) if after < end => {
                return Err(invalid(format!("the stream ends at byte {after}, and the file has {end}")));
            }
            Message::EndOfStream(_) => break,
        }
    }
    Ok(())
}

/// Checks the messages listed in the footer of a file.
///
/// # Errors
/// An error of kind `InvalidData` when a size is out of bounds.
pub(crate) fn check_blocks<'a>(
    reader: &mut (impl Read + Seek),
    blocks: impl IntoIterator<Item = &'a Block>,
) -> io::Result<()> {
    let end = reader.seek(SeekFrom::End(0))?;
    for block in blocks {
        let message = match u64::try_from(block.offset) {
            Ok(at) if at < end => check_message(reader, at, end)?,
            _ => return Err(invalid(format!("a batch begins at byte {}, and the file has {end}", block.offset))),
        };
        // Polars locates the body by the footer, not by the message.
        let claimed = block.offset.saturating_add(block.meta_data_length.into());
        match message {
            Message::Body(body) if i64::try_from(body.start) != Ok(claimed) => {
                let start = body.start;
                return Err(invalid(format!(
                    "the footer places the bytes of a batch at {claimed}, the batch at {start}"
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A message that has been checked.
enum Message {
    Body(Body),
    /// The end-of-stream marker, with the position of the byte after it.
    EndOfStream(u64),
}

/// Checks the message that starts at byte `at`.
fn check_message(reader: &mut (impl Read + Seek), at: u64, end: u64) -> io::Result<Message> {
    reader.seek(SeekFrom::Start(at))?;
    let mut length = [0; 4];
    let mut start = at + 4;
    within(4, end - at, "the length of a message")?;
    reader.read_exact(&mut length)?;
    if length == [0xff; 4] {
        within(8, end - at, "the length of a message")?;
        reader.read_exact(&mut length)?;
        start += 4;
    }
    let length = i32::from_le_bytes(length);
    if length == 0 {
        return Ok(Message::EndOfStream(start));
    }
    let length = within(i64::from(length), end - start, "a message")?;
    let mut bytes = vec![0; length as usize];
    reader.read_exact(&mut bytes)?;
    let damaged = |error: &dyn std::fmt::Display| invalid(format!("a message is damaged: {error}"));
    let message = MessageRef::read_as_root(&bytes).map_err(|error| damaged(&error))?;
    let body = message.body_length().map_err(|error| damaged(&error))?;
    let body_start = start + length;
    let body = Body { start: body_start, length: within(body, end - body_start, "a batch")? };
    let batch = match message.header().map_err(|error| damaged(&error))? {
        Some(MessageHeaderRef::RecordBatch(batch)) => Some(batch),
        Some(MessageHeaderRef::DictionaryBatch(batch)) => batch.data().map_err(|error| damaged(&error))?,
        _ => None,
    };
    if let Some(batch) = batch {
        check_buffers(reader, &body, &batch)?;
    }
    Ok(Message::Body(body))
}

/// The byte range of a message body, which holds the buffers.
struct Body {
    start: u64,
    length: u64,
}

fn check_buffers(reader: &mut (impl Read + Seek), body: &Body, batch: &RecordBatchRef<'_>) -> io::Result<()> {
    let damaged = |error: &dyn std::fmt::Display| invalid(format!("a batch is damaged: {error}"));
    let is_compressed = batch.compression().map_err(|error| damaged(&error))?.is_some();
    for buffer in batch.buffers().map_err(|error| damaged(&error))?.into_iter().flatten() {
        let length = within(buffer.length(), body.length, "a buffer")?;
        let offset = within(buffer.offset(), body.length - length, "what precedes a buffer")?;
        if is_compressed && length > 0 {
            check_compressed(reader, body.start + offset, length)?;
        }
    }
    Ok(())
}

/// Checks the length prefix of a compressed buffer: the decompressed length, or −1 if the buffer is not compressed.
fn check_compressed(reader: &mut (impl Read + Seek), at: u64, length: u64) -> io::Result<()> {
    if length < 8 {
        return Err(invalid(format!("a compressed buffer has {length} bytes, expected at least 8")));
    }
    let mut bytes = [0; 8];
    reader.seek(SeekFrom::Start(at))?;
    reader.read_exact(&mut bytes)?;
    match i64::from_le_bytes(bytes) {
        -1 => Ok(()),
        claimed => within(claimed, most_decompressed(length), "a decompressed buffer").map(drop),
    }
}
