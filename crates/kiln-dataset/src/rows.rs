use crate::delimited::{Delimited, Dialect};
use crate::jsonl::Jsonl;
use crate::{Error, Format, Row, Source, arrow, parquet};

/// The rows of one file or folder, in memory that does not grow with its length.
///
/// Blank lines of text files are skipped; a row with an empty text is kept. In CSV, a line break inside quotes
/// becomes `\n`. The iterator ends after its first error.
///
/// # Errors
/// When the file cannot be opened, its encoding or format is not known, or a column is not there;
/// then, row by row, as [`Error`] tells with file and line.
pub fn rows(source: &Source) -> Result<Box<dyn Iterator<Item = Result<Row, Error>> + Send>, Error> {
    Ok(match source.format()? {
        Format::Csv => until_error(Delimited::open(source, Dialect::Csv)?),
        Format::Tsv => until_error(Delimited::open(source, Dialect::Tsv)?),
        Format::Jsonl => until_error(Jsonl::open(source)?),
        Format::Parquet => until_error(parquet::rows(source)?),
        Format::Arrow => until_error(arrow::rows(source)?),
        format @ (Format::Conll | Format::Squad | Format::Text) => {
            return Err(Error::NoColumns { path: source.path.clone(), format });
        }
    })
}

fn until_error(
    rows: impl Iterator<Item = Result<Row, Error>> + Send + 'static,
) -> Box<dyn Iterator<Item = Result<Row, Error>> + Send> {
    let mut failed = false;
    Box::new(rows.take_while(move |row| !std::mem::replace(&mut failed, row.is_err())))
}
