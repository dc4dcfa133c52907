//! Checks the sizes and counts in the page headers of a Parquet file against the size of the file and the number of
//! values in its footer. Polars allocates the size that a header claims before it decodes, and a failed allocation ends
//! the process.
//!
//! The headers are decoded with the same library that polars uses, so that both read the same numbers.

use std::io::{BufReader, Read, Seek, SeekFrom};
use std::{io, ops::Range};

use polars_parquet_format::thrift::protocol::TCompactInputProtocol;
use polars_parquet_format::{DataPageHeaderV2, PageHeader, PageType};

use crate::bounds::{invalid, most_decompressed, within};

/// The maximum size of a page header. A header can contain statistics: one or two values of the column.
const MOST_HEADER_BYTES: u64 = 16 << 20;
/// The minimum size of a dictionary value: a 32-bit number, or the length of a text.
const LEAST_DICTIONARY_VALUE: u64 = 4;

/// A column chunk of a row group, as described in the footer.
pub(crate) struct Chunk {
    /// The byte range of the chunk, which is within the file.
    pub(crate) bytes: Range<u64>,
    pub(crate) values: u64,
}

/// Checks the header of each page of a chunk that polars reads.
///
/// # Errors
/// An error of kind `InvalidData` when a number is out of bounds.
pub(crate) fn check_pages(reader: impl Read + Seek, chunk: &Chunk) -> io::Result<()> {
    let mut reader = BufReader::new(reader);
    let Range { start, end } = chunk.bytes;
    reader.seek(SeekFrom::Start(start))?;
    let (mut at, mut values) = (start, 0);
    while values < chunk.values {
        if at >= end {
            return Err(invalid(format!("its pages have {values} values, expected {}", chunk.values)));
        }
        let header_at = at;
        let in_page = |error: io::Error| match error.kind() {
            io::ErrorKind::InvalidData => invalid(format!("the page at byte {header_at}: {error}")),
            _ => error,
        };
        let (header, length) = read_header(&mut reader, end - at).map_err(in_page)?;
        at += length;
        let page = check_header(&header, end - at, chunk.values - values).map_err(in_page)?;
        if page.is_dictionary && header_at > start {
            return Err(in_page(invalid("it is a dictionary, which only the first page may be".to_owned())));
        }
        at += page.length;
        values += page.values;
        reader.seek_relative(i64::try_from(page.length).expect("it was an i32"))?;
    }
    Ok(())
}

/// Reads a page header and returns it with its length.
fn read_header(reader: &mut impl Read, most: u64) -> io::Result<(PageHeader, u64)> {
    let most = most.min(MOST_HEADER_BYTES);
    let mut bytes = reader.take(most);
    let limit = usize::try_from(most).expect("16 MiB at most");
    let header = PageHeader::read_from_in_protocol(&mut TCompactInputProtocol::new(&mut bytes, limit));
    let header = header.map_err(|error| invalid(format!("its header is damaged: {error}")))?;
    Ok((header, most - bytes.limit()))
}

/// A page whose header has been checked.
struct Page {
    /// The length in bytes, without the header.
    length: u64,
    values: u64,
    is_dictionary: bool,
}

/// Checks a header. The chunk has `most_bytes` and `most_values` left for the page.
fn check_header(header: &PageHeader, most_bytes: u64, most_values: u64) -> io::Result<Page> {
    let length = within(header.compressed_page_size.into(), most_bytes, "it")?;
    let most = most_decompressed(length);
    let decompressed = within(header.uncompressed_page_size.into(), most, "without compression, it")?;
    let page = |values| Page { length, values, is_dictionary: false };
    match (header.type_, &header.data_page_header, &header.data_page_header_v2, &header.dictionary_page_header) {
        (PageType::DATA_PAGE, Some(data), _, _) => count(data.num_values, most_values, "values").map(page),
        (PageType::DATA_PAGE_V2, _, Some(data), _) => {
            check_levels(data, length.min(decompressed))?;
            let values = count(data.num_values, most_values, "values")?;
            count(data.num_rows, values, "rows")?;
            count(data.num_nulls, values, "nulls")?;
            Ok(page(values))
        }
        (PageType::DICTIONARY_PAGE, _, _, Some(dictionary)) => {
            count(dictionary.num_values, decompressed / LEAST_DICTIONARY_VALUE, "values")?;
            Ok(Page { length, values: 0, is_dictionary: true })
        }
        (kind, ..) => {
            let kind = kind.0;
            Err(invalid(format!("it is of type {kind}, expected data (0 or 3) or a dictionary (2), with its header")))
        }
    }
}

/// Checks the levels of a version 2 page. They precede the values and are never compressed.
fn check_levels(data: &DataPageHeaderV2, most: u64) -> io::Result<()> {
    let repetition = within(data.repetition_levels_byte_length.into(), most, "the part with repetition levels")?;
    within(data.definition_levels_byte_length.into(), most - repetition, "the part with definition levels").map(drop)
}

fn count(claimed: i32, most: u64, what: &str) -> io::Result<u64> {
    match u64::try_from(claimed) {
        Ok(count) if count <= most => Ok(count),
        _ => Err(invalid(format!("it declares {claimed} {what}, expected at most {most}"))),
    }
}
