//! The table of suspects. The text and label are in the columns that the recipe expects, and the evidence is in further
//! columns.

use std::fmt::Write;

use kiln_dataset::{Column, Columns, Encoding, Format};
use serde_json::json;

use super::Suspect;
use crate::recipe::Data;

/// The columns of evidence, in addition to the text and label of each row.
const EVIDENCE: [&str; 10] = [
    "suspect",
    "suggested",
    "probability",
    "suggested_probability",
    "scores",
    "file",
    "line",
    "nearest_1",
    "nearest_2",
    "nearest_3",
];

/// All rows as tab-separated values, with the suspect rows first and numbered. The text and the label are in the columns
/// that the recipe names, so that the recipe can read the table like its own files. There is a header if those files have
/// one. Tabs and line ends within a cell become spaces.
pub(super) fn to_tsv(data: &Data, suspects: &[Suspect], others: impl Iterator<Item = Suspect>) -> String {
    let layout = Layout::new(&data.columns);
    let mut table = String::new();
    if data.header {
        layout.write(&mut table, &layout.names);
    }
    for (number, suspect) in (1..).zip(suspects) {
        layout.write(&mut table, &cells(suspect, Some(number)));
    }
    for row in others {
        layout.write(&mut table, &cells(&row, None));
    }
    table
}

/// The keys to remove before the recipe can read the table; `None` if it already can. Another value would be wrong for the
/// recipe's other files.
pub(super) fn keys_to_remove(data: &Data) -> Option<String> {
    let is_other_format = data.format.is_some_and(|format| format != Format::Tsv);
    let is_other_encoding = data.encoding.is_some_and(|encoding| encoding != Encoding::Utf8);
    let keys: Vec<&str> = [(is_other_format, "data.format"), (is_other_encoding, "data.encoding")]
        .into_iter()
        .filter_map(|(is_other, key)| is_other.then_some(key))
        .collect();
    (!keys.is_empty()).then(|| keys.join(" and "))
}

/// The cells of a row: text, second text, label, and the evidence.
fn cells(row: &Suspect, number: Option<usize>) -> Vec<String> {
    let rounded = |score: f64| (score * 1e6).round() / 1e6;
    let scores = row.scores.iter().map(|(label, score)| (label.clone(), json!(rounded(*score))));
    let mut cells = vec![
        row.text.clone(),
        row.text_pair.clone().unwrap_or_default(),
        row.label.clone(),
        number.map(|number| number.to_string()).unwrap_or_default(),
        row.suggested.clone(),
        format!("{:.4}", row.probability),
        format!("{:.4}", row.suggested_probability),
        serde_json::Value::Object(scores.collect()).to_string(),
        row.file.display().to_string(),
        row.line.to_string(),
    ];
    let nearest = row.nearest.iter();
    cells.extend(nearest.map(|other| format!("{} ({:.4}): {}", other.label, other.similarity, other.text)));
    cells
}

/// Which cell is in which column.
struct Layout {
    /// The cell of each column; `None` if the column is empty.
    columns: Vec<Option<usize>>,
    /// The name of each cell.
    names: Vec<String>,
}

impl Layout {
    fn new(columns: &Columns) -> Self {
        let own = [
            ("text", Some(&columns.text)),
            ("text_pair", columns.text_pair.as_ref()),
            ("label", columns.label.as_ref()),
        ];
        let given = own.iter().filter_map(|(_, column)| match column {
            Some(Column::Name(name)) => Some(name.clone()),
            _ => None,
        });
        let given: Vec<String> = given.collect();
        let mut names: Vec<String> = Vec::new();
        for (default, column) in own.iter().copied().chain(EVIDENCE.map(|name| (name, None))) {
            names.push(match column {
                Some(Column::Name(name)) => name.clone(),
                _ => free_name(default, |name| given.contains(name) || names.contains(name)),
            });
        }
        let mut placed: Vec<Option<usize>> = Vec::new();
        for (cell, (_, column)) in own.iter().enumerate() {
            if let Some(Column::Index(index)) = column {
                placed.resize(placed.len().max(index + 1), None);
                placed[*index] = Some(cell);
            }
        }
        let named = own.iter().enumerate().filter(|(_, (_, column))| matches!(column, Some(Column::Name(_))));
        for cell in named.map(|(cell, _)| cell).chain(own.len()..names.len()) {
            match placed.iter().position(Option::is_none) {
                Some(free) => placed[free] = Some(cell),
                None => placed.push(Some(cell)),
            }
        }
        Self { columns: placed, names }
    }

    fn write(&self, table: &mut String, cells: &[String]) {
        for (at, cell) in self.columns.iter().enumerate() {
            let cell = cell.and_then(|cell| cells.get(cell)).map_or("", String::as_str);
            let flat = cell.replace(['\t', '\n', '\r'], " ");
            write!(table, "{}{flat}", if at == 0 { "" } else { "\t" }).expect("a string takes any text");
        }
        table.push('\n');
    }
}

/// The name, with underscores appended until it is free.
fn free_name(name: &str, is_taken: impl Fn(&String) -> bool) -> String {
    let mut name = name.to_owned();
    while is_taken(&name) {
        name.push('_');
    }
    name
}

#[cfg(test)]
mod tests {
    use kiln_dataset::{Source, read};

    use super::*;
    use crate::Recipe;

    fn row(text: &str, label: &str) -> Suspect {
        Suspect {
            file: "a.tsv".into(),
            line: 7,
            label: label.to_owned(),
            probability: 0.25,
            suggested: "yes".to_owned(),
            suggested_probability: 0.75,
            scores: [("no".to_owned(), 0.25), ("yes".to_owned(), 0.75)].into(),
            text: text.to_owned(),
            text_pair: None,
            nearest: Vec::new(),
        }
    }

    fn data(lines: &str) -> Data {
        let text = format!(
            "task = \"sequence-classification\"\nmodel.source = \"sample\"\n[data]\ntrain = \"a.tsv\"\nvalidation = \"b.tsv\"\n{lines}"
        );
        Recipe::from_toml(&text, "recipe.toml".as_ref(), &[]).expect("the recipe is good").data
    }

    #[test]
    fn the_recipe_reads_the_table_as_its_own_files() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("suspects.tsv");
        for lines in [
            "",
            "text = 3\nlabel = 0",
            "text = \"suggested\"\nlabel = \"line\"",
            "header = true\ntext = 2\nlabel = 20",
            "header = true\ntext = \"label\"\nlabel = 0",
            "text = \"nearest_1\"\nlabel = \"text\"\ntext_pair = \"label\"",
        ] {
            let data = data(lines);
            let rows = [row("很\t好", "no"), row("\"x", "yes")];
            let table = to_tsv(&data, &rows[..1], rows[1..].iter().cloned());
            std::fs::write(&path, &table).expect("it is writable");
            let source = Source { header: data.header, ..Source::new(&path, data.columns.clone()) };
            let (read, labels) = read::<kiln_schema::Example>(&[source], None).expect("both rows");
            let read: Vec<_> = read.iter().map(|row| (row.text.as_str(), labels.name(row.target))).collect();
            assert_eq!(read, [("很 好", "no"), ("\"x", "yes")], "{lines}: {table}");
        }
    }

    #[test]
    fn evidence_has_its_columns() {
        let table = to_tsv(&data("header = true"), &[row("a", "no")], std::iter::empty());
        let expected = "text\tlabel\tsuspect\tsuggested\tprobability\tsuggested_probability\tscores\tfile\tline\tnearest_1\tnearest_2\tnearest_3\n\
                        a\tno\t1\tyes\t0.2500\t0.7500\t{\"no\":0.25,\"yes\":0.75}\ta.tsv\t7\t\t\t\n";
        assert_eq!(table, expected);
    }

    #[test]
    fn another_format_or_encoding_is_named() {
        assert_eq!(keys_to_remove(&data("")), None);
        let keys = keys_to_remove(&data("format = \"csv\"\nencoding = \"gbk\""));
        assert_eq!(keys.as_deref(), Some("data.format and data.encoding"));
    }
}
