use serde_json::{Map, Value};

use crate::delimited::{Dialect, next_record};
use crate::lines::Lines;
use crate::{Error, Format, Source, arrow, parquet};

/// The columns of the first row: the cells of a CSV or TSV file, whether or not they are a header; the keys of a JSON
/// Lines file; the names of the columns of Parquet and Arrow; or the whole first line of plain text. `None` for an empty
/// file, and for the other formats, whose structure is fixed.
///
/// # Errors
/// When the file cannot be read, or when its first row is damaged.
pub fn head(source: &Source) -> Result<Option<Vec<String>>, Error> {
    let format = source.format()?;
    match format {
        Format::Csv | Format::Tsv | Format::Jsonl | Format::Text => {}
        Format::Parquet => return Ok(Some(parquet::open(source)?.names)),
        Format::Arrow => return Ok(Some(arrow::open(source)?.names)),
        Format::Conll | Format::Squad => return Ok(None),
    }
    let mut lines = Lines::open(source)?;
    let record = |lines: &mut Lines, dialect| -> Result<_, Error> {
        let record = next_record(lines, dialect)?;
        Ok(record.map(|(_, cells)| cells.iter().map(|cell| cell.trim().to_owned()).collect()))
    };
    match format {
        Format::Csv => record(&mut lines, Dialect::Csv),
        Format::Tsv => record(&mut lines, Dialect::Tsv),
        Format::Jsonl => {
            let Some(line) = lines.next_filled_line()? else { return Ok(None) };
            let object: Map<String, Value> =
                serde_json::from_str(&line).map_err(|source| Error::Json { place: lines.place(), source })?;
            Ok(Some(object.keys().cloned().collect()))
        }
        _ => Ok(lines.next_filled_line()?.map(|line| vec![line])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::file;

    fn columns(name: &str, content: &str) -> Option<Vec<String>> {
        head(&file(name, content).source).expect("it can be read")
    }

    #[test]
    fn the_first_row_of_each_format_of_lines() {
        let expected = |columns: &[&str]| Some(columns.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(columns("a.tsv", "\u{feff} text \t\"label\"\na\tb\n"), expected(&["text", "\"label\""]));
        assert_eq!(columns("a.csv", "\n\"one, two\",2\n"), expected(&["one, two", "2"]));
        assert_eq!(columns("a.jsonl", "{\"text\": []}\nx"), expected(&["text"]));
        assert_eq!(columns("a.csv", ""), None);
        let mut plain = file("a.txt", "a\tb\n");
        plain.source.format = Some(Format::Text);
        assert_eq!(head(&plain.source).expect("it can be read"), expected(&["a\tb"]));
        let fault = head(&file("a.jsonl", "[1]\n").source).expect_err("no object").to_string();
        assert!(fault.contains("a.jsonl, line 1"), "{fault}");
    }
}
