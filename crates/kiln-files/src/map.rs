use std::fs::File;
use std::io;
use std::ops::Range;

use memmap2::{Mmap, MmapOptions};

/// A memory-mapped part of a file. Only the pages that are read are loaded. Dropping the value unmaps it.
#[derive(Debug)]
pub struct Mapped {
    /// None for an empty range, which cannot be mapped.
    map: Option<Mmap>,
}

impl Mapped {
    /// Maps a range of bytes of an open file.
    ///
    /// The file must not change while it is mapped. If another process truncates it, reading the missing part kills
    /// this process. If another process overwrites it, the bytes that are read change.
    ///
    /// # Errors
    /// When the file ends within the range, or when it cannot be mapped.
    #[allow(unsafe_code, reason = "the one call that maps a file")]
    pub fn new(file: &File, range: Range<u64>) -> io::Result<Self> {
        let length = file.metadata()?.len();
        if range.start > range.end || range.end > length {
            let message = format!("it has {length} bytes; expected bytes {} to {}", range.start, range.end);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        if range.is_empty() {
            return Ok(Self { map: None });
        }
        let mut options = MmapOptions::new();
        options.offset(range.start).len((range.end - range.start) as usize);
        // SAFETY: the bytes are read as bytes and numbers, for which every value is valid. It cannot be proved that no
        // other process changes the file in the meantime. The documentation requires it, and every memory map of a file
        // relies on it.
        let map = unsafe { options.map(file) }?;
        Ok(Self { map: Some(map) })
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_file_is_read_where_it_is() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a");
        std::fs::write(&path, (0..=255).cycle().take(70_000).collect::<Vec<u8>>()).expect("a small file");
        let file = crate::open(&path).expect("it is a file");
        for range in [0..70_000, 4095..4099, 69_999..70_000, 7..7, 70_000..70_000] {
            let expected: Vec<u8> = range.clone().map(|at| (at % 256) as u8).collect();
            assert_eq!(Mapped::new(&file, range).expect("it is within").as_ref(), expected);
        }
        let message = Mapped::new(&file, 5..70_001).expect_err("it ends before").to_string();
        assert_eq!(message, "it has 70000 bytes; expected bytes 5 to 70001");
    }
}
