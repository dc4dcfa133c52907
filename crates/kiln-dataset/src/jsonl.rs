use serde_json::{Map, Value};

use crate::lines::Lines;
use crate::source::{scalar, scalars};
use crate::{Column, Columns, Error, Row, Source};

/// Iterates over the rows of a JSON Lines file.
#[derive(Debug)]
pub(crate) struct Jsonl {
    lines: Lines,
    columns: Columns,
}

impl Jsonl {
    pub(crate) fn open(source: &Source) -> Result<Self, Error> {
        let columns = source.columns.clone();
        for column in [Some(&columns.text), columns.text_pair.as_ref(), columns.label.as_ref()].into_iter().flatten() {
            if matches!(column, Column::Index(_)) {
                return Err(Error::BadColumn {
                    path: source.path.clone(),
                    column: column.clone(),
                    why: "the keys of a JSON object have no order: give the column's name",
                });
            }
        }
        Ok(Self { lines: Lines::open(source)?, columns })
    }

    fn row(&self, line: &str) -> Result<Row, Error> {
        let object: Map<String, Value> =
            serde_json::from_str(line).map_err(|source| Error::Json { place: self.lines.place(), source })?;
        let text = self.cell(&object, &self.columns.text)?;
        let text_pair = self.columns.text_pair.as_ref().map(|column| self.cell(&object, column)).transpose()?;
        let mut labels = self.columns.label.as_ref().map(|column| self.list(&object, column)).transpose()?.flatten();
        let label = self.columns.label.as_ref().filter(|_| labels.is_none());
        let label = label.map(|column| self.cell(&object, column)).transpose()?.flatten();
        if !self.columns.flags.is_empty() {
            let bad = |column: &Column, found| Error::Flag { place: self.lines.place(), column: column.clone(), found };
            labels = Some(self.columns.flagged(|_, column| self.cell(&object, column), bad)?);
        }
        let text_pair = text_pair.map(Option::unwrap_or_default);
        Ok(Row::new(text.unwrap_or_default(), text_pair, label, self.lines.line()).with_labels(labels))
    }

    /// The labels of a cell with a list; none for another cell.
    fn list(&self, object: &Map<String, Value>, column: &Column) -> Result<Option<Vec<String>>, Error> {
        let Column::Name(name) = column else { return Ok(None) };
        let Some(Value::Array(values)) = object.get(name) else { return Ok(None) };
        scalars(values).map(Some).map_err(|value| self.bad_cell(column, format!("a list with {value}")))
    }

    fn bad_cell(&self, column: &Column, found: String) -> Error {
        Error::Cell { place: self.lines.place(), column: column.clone(), found }
    }

    fn cell(&self, object: &Map<String, Value>, column: &Column) -> Result<Option<String>, Error> {
        let Column::Name(name) = column else {
            unreachable!("`open` refuses indices");
        };
        match object.get(name) {
            Some(Value::Array(_)) => Err(self.bad_cell(column, "an array".to_owned())),
            Some(Value::Object(_)) => Err(self.bad_cell(column, "an object".to_owned())),
            Some(value) => Ok(scalar(value)),
            None => {
                let columns = object.keys().cloned().collect();
                Err(Error::NoColumn { place: self.lines.place(), name: name.clone(), columns })
            }
        }
    }
}

impl Iterator for Jsonl {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.lines.next_filled_line().transpose().map(|line| self.row(&line?))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{cell, file};

    #[test]
    fn labels_may_be_names_numbers_and_booleans() {
        let lines = [
            r#"{"text": "a\tb\nc", "label": "1"}"#,
            r#"{"label": 1, "text": "b", "more": [1]}"#,
            r#"{"text": null, "label": 1.0}"#,
            "",
            r#"{"text": 2.5, "label": true}"#,
            r#"{"text": "no label", "label": null}"#,
        ];
        let file = file("a.jsonl", lines.join("\n")).with_header("text", "label");
        let cells = [
            cell(1, "a\tb\nc", "1"),
            cell(2, "b", "1"),
            cell(3, "", "1"),
            cell(5, "2.5", "true"),
            cell(6, "no label", ""),
        ];
        assert_eq!(file.cells(), cells);
    }

    #[test]
    fn faults_name_the_line() {
        let fault = |line: &str| {
            let good = r#"{"text": "a", "label": 0}"#;
            file("a.jsonl", format!("{good}\n{line}\n")).with_header("text", "label").fault()
        };
        assert_eq!(fault("{\"text\": \"a\""), "a.jsonl, line 2: expected one JSON object per line");
        assert_eq!(fault("[1]"), "a.jsonl, line 2: expected one JSON object per line");
        assert_eq!(
            fault(r#"{"text": "a", "lable": 0}"#),
            "a.jsonl, line 2: there is no column `label` (did you mean `lable`?): the columns are `lable`, `text`"
        );
        assert_eq!(
            fault(r#"{"text": ["a"], "label": 0}"#),
            "a.jsonl, line 2: column `text` holds an array: expected text, a number or a boolean"
        );
        let by_index = file("a.jsonl", "{}").fault();
        assert!(by_index.starts_with("a.jsonl: column 0: the keys of a JSON object have no order"), "{by_index}");
    }
}
