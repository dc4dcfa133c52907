use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use encoding_rs::{Decoder, DecoderResult, UTF_16BE, UTF_16LE};

use crate::Encoding;

/// The lines of a text file as bytes. UTF-16 is converted to UTF-8.
#[derive(Debug)]
pub(crate) struct ByteLines {
    reader: BufReader<Content>,
    /// The last byte of a line: a line feed, or a carriage return in a file without line feeds (classic Mac OS).
    end: u8,
}

impl ByteLines {
    pub(crate) fn open(path: &Path, encoding: Option<Encoding>) -> io::Result<Self> {
        let open = || Ok::<_, io::Error>(BufReader::with_capacity(CHUNK, Content::open(path, encoding)?));
        let end = line_end(&mut open()?)?;
        Ok(Self { reader: open()?, end })
    }

    /// Reads a line into `bytes`, without its end. Returns false at the end of the file.
    pub(crate) fn read(&mut self, bytes: &mut Vec<u8>) -> io::Result<bool> {
        bytes.clear();
        if self.reader.read_until(self.end, bytes)? == 0 {
            return Ok(false);
        }
        if bytes.last() == Some(&self.end) {
            bytes.pop();
            if self.end == b'\n' && bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        Ok(true)
    }
}

const CHUNK: usize = 1 << 16;

/// Finds the byte that ends the lines of a file. Reads up to the first line feed, in constant memory.
fn line_end(reader: &mut impl BufRead) -> io::Result<u8> {
    let mut has_return = false;
    loop {
        let buffer = match reader.fill_buf() {
            Ok(buffer) => buffer,
            // The error is reported when the line is read.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(b'\n'),
            Err(error) => return Err(error),
        };
        if buffer.contains(&b'\n') {
            return Ok(b'\n');
        }
        if buffer.is_empty() {
            return Ok(if has_return { b'\r' } else { b'\n' });
        }
        has_return |= buffer.contains(&b'\r');
        let read = buffer.len();
        reader.consume(read);
    }
}

/// The bytes of a text file. UTF-16 is converted to UTF-8.
enum Content {
    Plain(File),
    Utf16(Box<Utf16>),
}

struct Utf16 {
    file: File,
    decoder: Decoder,
    /// Decoded bytes; those before `at` were already returned.
    decoded: Vec<u8>,
    at: usize,
    is_over: bool,
    /// Whether the bytes after the decoded ones are not valid UTF-16.
    is_broken: bool,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(file) => f.debug_tuple("Plain").field(file).finish(),
            Self::Utf16(content) => f.debug_tuple("Utf16").field(&content.file).finish(),
        }
    }
}

impl Content {
    fn open(path: &Path, encoding: Option<Encoding>) -> io::Result<Self> {
        let file = kiln_files::open(path)?;
        let decoder = match encoding {
            Some(Encoding::Utf16Le) => UTF_16LE.new_decoder_with_bom_removal(),
            Some(Encoding::Utf16Be) => UTF_16BE.new_decoder_with_bom_removal(),
            _ => return Ok(Self::Plain(file)),
        };
        Ok(Self::Utf16(Box::new(Utf16 { file, decoder, decoded: Vec::new(), at: 0, is_over: false, is_broken: false })))
    }
}

impl Read for Content {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(bytes),
            Self::Utf16(content) => content.read(bytes),
        }
    }
}

impl Utf16 {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.at == self.decoded.len() && !self.is_over && !self.is_broken {
            self.decode()?;
        }
        if self.at == self.decoded.len() && self.is_broken {
            let problem = "half of a character without the other half";
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        let read = bytes.len().min(self.decoded.len() - self.at);
        bytes[..read].copy_from_slice(&self.decoded[self.at..self.at + read]);
        self.at += read;
        Ok(read)
    }

    /// Decodes the next chunk of the file.
    fn decode(&mut self) -> io::Result<()> {
        let mut raw = vec![0; CHUNK];
        let length = self.file.read(&mut raw)?;
        self.is_over = length == 0;
        self.at = 0;
        let room = self.decoder.max_utf8_buffer_length_without_replacement(length);
        self.decoded.resize(room.expect("a chunk is small"), 0);
        let (result, _, written) =
            self.decoder.decode_to_utf8_without_replacement(&raw[..length], &mut self.decoded, self.is_over);
        self.is_broken = matches!(result, DecoderResult::Malformed(..));
        self.decoded.truncate(written);
        Ok(())
    }
}
