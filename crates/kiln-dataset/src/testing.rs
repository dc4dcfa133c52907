//! Helpers for the tests of the readers.

use std::fs;

use tempfile::TempDir;

use crate::{Columns, Error, Row, Source, rows};

/// A file in its own temporary folder, with the text in column 0 and the label in column 1.
pub(crate) struct File {
    pub(crate) source: Source,
    _folder: TempDir,
}

pub(crate) fn file(name: &str, content: impl AsRef<[u8]>) -> File {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    fs::write(&path, content).expect("a small file");
    let columns = Columns { text: 0.into(), text_pair: None, label: Some(1.into()), flags: vec![] };
    File { source: Source::new(path, columns), _folder: folder }
}

impl File {
    pub(crate) fn with_header(mut self, text: &str, label: &str) -> Self {
        self.source.header = true;
        self.source.columns = Columns { text: text.into(), label: Some(label.into()), ..self.source.columns };
        self
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        rows(&self.source).and_then(Iterator::collect).expect("rows without faults")
    }

    /// (line, text, label) of each row. A missing label is empty.
    pub(crate) fn cells(&self) -> Vec<(u64, String, String)> {
        self.rows().into_iter().map(|row| (row.line, row.text, row.label.unwrap_or_default())).collect()
    }

    /// The first error, without the folder in its path.
    pub(crate) fn fault(&self) -> String {
        let read: Result<Vec<Row>, Error> = rows(&self.source).and_then(Iterator::collect);
        let message = read.expect_err("the file has a fault").to_string();
        let folder = self.source.path.parent().expect("a folder").display().to_string();
        message.replace(&format!("{folder}/"), "")
    }
}

pub(crate) fn cell(line: u64, text: &str, label: &str) -> (u64, String, String) {
    (line, text.to_owned(), label.to_owned())
}
