use std::collections::VecDeque;

use crate::lines::Lines;
use crate::{Columns, Error, Format, Row, Source, rows, sentences};

/// An element of a corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passage {
    /// A sentence of a document.
    Sentence(String),
    /// The end of a document.
    End,
}

/// Reads the sentences of a corpus in constant memory.
///
/// In plain text, blank lines separate documents, and each line is divided into sentences. In any other format, the
/// text column is read and each row is a document.
///
/// A file that ends in `.txt` is plain text. The iterator ends after the first error; without an error, the last
/// passage is [`Passage::End`].
///
/// # Errors
/// Returns the errors of [`rows`](crate::rows()).
pub fn corpus(source: &Source) -> Result<Box<dyn Iterator<Item = Result<Passage, Error>> + Send>, Error> {
    let plain = source.path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("txt"));
    let format = source.format.or(plain.then_some(Format::Text)).map_or_else(|| source.format(), Ok)?;
    if format == Format::Text {
        let lines = Lines::open(source)?;
        return Ok(Box::new(PlainText { lines, waiting: VecDeque::new(), open: false, ended: false }));
    }
    let columns = Columns { text_pair: None, ..source.columns.unlabelled() };
    let documents = rows(&Source { columns, format: Some(format), ..source.clone() })?;
    Ok(Box::new(documents.flat_map(|row: Result<Row, Error>| match row {
        Ok(row) => {
            let mut passages: Vec<_> =
                sentences(&row.text).into_iter().map(|text| Ok(Passage::Sentence(text.to_owned()))).collect();
            if !passages.is_empty() {
                passages.push(Ok(Passage::End));
            }
            passages
        }
        Err(error) => vec![Err(error)],
    })))
}

struct PlainText {
    lines: Lines,
    waiting: VecDeque<String>,
    /// Whether the current document has a sentence yet.
    open: bool,
    ended: bool,
}

impl Iterator for PlainText {
    type Item = Result<Passage, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(sentence) = self.waiting.pop_front() {
                self.open = true;
                return Some(Ok(Passage::Sentence(sentence)));
            }
            if self.ended {
                return None;
            }
            let line = match self.lines.next_line() {
                Ok(line) => line,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            };
            self.ended = line.is_none();
            self.waiting.extend(sentences(line.as_deref().unwrap_or_default()).into_iter().map(str::to_owned));
            if self.waiting.is_empty() && std::mem::take(&mut self.open) {
                return Some(Ok(Passage::End));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::file;

    fn read(name: &str, content: &str) -> Vec<String> {
        let passages = corpus(&file(name, content).source).expect("it can be opened");
        let told = passages.map(|passage| match passage.expect("it can be read") {
            Passage::Sentence(sentence) => sentence,
            Passage::End => "—".to_owned(),
        });
        told.collect()
    }

    #[test]
    fn blank_lines_and_rows_part_documents() {
        assert_eq!(read("a.txt", "\n一。二！\n三\n\n \n四\tx\n"), ["一。", "二！", "三", "—", "四\tx", "—"]);
        assert_eq!(read("a.txt", ""), [""; 0]);
        assert_eq!(read("a.tsv", "一。二\tx\n\t\n三\ty\n"), ["一。", "二", "—", "三", "—"]);
    }
}
