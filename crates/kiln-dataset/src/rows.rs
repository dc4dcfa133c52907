use crate::delimited::{Delimited, Dialect};
use crate::jsonl::Jsonl;
use crate::lines::Lines;
use crate::{Error, Format, Row, Source, arrow, parquet};

/// Iterates over the rows of one file or folder, in constant memory.
///
/// Blank lines of text files are skipped. A row with an empty text is kept. In CSV, a line break inside quotes becomes
/// `\n`. In plain text, each line is a row. The iterator ends after its first error.
///
/// # Errors
/// When the file cannot be opened, when its encoding or format is unknown, or when a column does not exist. Errors in a
/// row are returned by the iterator, with file and line.
pub fn rows(source: &Source) -> Result<Box<dyn Iterator<Item = Result<Row, Error>> + Send>, Error> {
    let rows: Box<dyn Iterator<Item = _> + Send> = match source.format()? {
        Format::Csv => until_error(Delimited::open(source, Dialect::Csv)?),
        Format::Tsv => until_error(Delimited::open(source, Dialect::Tsv)?),
        Format::Jsonl => until_error(Jsonl::open(source)?),
        Format::Parquet => until_error(parquet::open(source)?.rows(&source.columns)?),
        Format::Arrow => until_error(arrow::open(source)?.rows(&source.columns)?),
        Format::Text => until_error(text_lines(source)?),
        format @ (Format::Conll | Format::Squad) => {
            return Err(Error::NoColumns { path: source.path.clone(), format });
        }
    };
    Ok(match source.keeps_white_space {
        true => rows,
        false => Box::new(rows.map(|row| row.map(Row::trimmed))),
    })
}

/// Each line of plain text as a row that has only a text.
fn text_lines(source: &Source) -> Result<impl Iterator<Item = Result<Row, Error>> + Send + use<>, Error> {
    let mut lines = Lines::open(source)?;
    Ok(std::iter::from_fn(move || {
        loop {
            match lines.next_filled_line().transpose()? {
                Ok(line) if line.trim().is_empty() => {}
                line => return Some(line.map(|line| Row::new(line, None, None, lines.line()))),
            }
        }
    }))
}

fn until_error(
    rows: impl Iterator<Item = Result<Row, Error>> + Send + 'static,
) -> Box<dyn Iterator<Item = Result<Row, Error>> + Send> {
    let mut failed = false;
    Box::new(rows.take_while(move |row| !std::mem::replace(&mut failed, row.is_err())))
}

#[cfg(test)]
mod tests {
    use crate::testing::file;
    use crate::{Columns, Format};

    #[test]
    fn a_line_of_plain_text_is_a_row() {
        let mut plain = file("a.txt", "房间\t很大\r\n\n \u{3000}太差了 \n\"x\n\t\n\u{3000}\n");
        plain.source.format = Some(Format::Text);
        plain.source.columns = Columns { text: 0.into(), text_pair: None, label: None, flags: vec![] };
        let rows: Vec<(u64, String)> = plain.rows().into_iter().map(|row| (row.line, row.text)).collect();
        assert_eq!(rows, [(1, "房间\t很大".to_owned()), (3, "太差了".to_owned()), (4, "\"x".to_owned())]);
        plain.source.keeps_white_space = true;
        let texts: Vec<String> = plain.rows().into_iter().map(|row| row.text).collect();
        assert_eq!(texts, ["房间\t很大", " \u{3000}太差了 ", "\"x"]);
    }
}
