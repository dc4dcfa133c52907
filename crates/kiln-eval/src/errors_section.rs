use kiln_schema::Split;

use crate::charts::escape;
use crate::html::put;
use crate::in_context::{CONTEXT, marked};

/// The table of the model's mistakes in the last split.
pub(crate) struct ErrorTable<'a> {
    columns: Vec<&'a str>,
    rows: Vec<Vec<&'a str>>,
}

impl<'a> ErrorTable<'a> {
    /// Parses a table of tab-separated values; `None` if it has no header.
    pub fn new(table: &'a str) -> Option<Self> {
        let mut rows = table.lines().map(|line| line.split('\t').collect());
        Some(Self { columns: rows.next()?, rows: rows.collect() })
    }

    /// The true and the predicted label of a row, if the table has both columns.
    fn confusion(&self, row: usize) -> Option<[&'a str; 2]> {
        let at = ["target", "prediction"].map(|name| self.columns.iter().position(|column| *column == name));
        let [Some(target), Some(prediction)] = at else { return None };
        Some([self.rows[row].get(target)?, self.rows[row].get(prediction)?])
    }

    /// The first row with a confusion, given as the true and the predicted label.
    pub fn first(&self, confusion: [&str; 2]) -> Option<usize> {
        (0..self.rows.len()).find(|&row| self.confusion(row) == Some(confusion))
    }
}

/// Writes the table of mistakes in a split. The confusion matrix links to its rows.
pub(crate) fn errors_section(page: &mut String, errors: &ErrorTable<'_>, split: Split) {
    let ErrorTable { columns, rows } = errors;
    if rows.is_empty() {
        put(page, format_args!("<h2>errors</h2>\n<p>The model is right about every row of {split}.</p>\n"));
        return;
    }
    // Empty columns, such as that of second texts, are left out.
    let is_filled = |at: usize| rows.iter().any(|row| row.get(at).is_some_and(|cell| !cell.is_empty()));
    let shown: Vec<usize> = (0..columns.len()).filter(|&at| is_filled(at)).collect();
    put(
        page,
        format_args!("<h2>errors</h2>\n<p>The worst mistakes in {split}; some of the labels may be wrong.</p>\n"),
    );
    page.push_str("<div class=\"scroll\"><table class=\"errors\"><tr>");
    for &at in &shown {
        put(page, format_args!("<th>{}</th>", escape(&columns[at].replace('_', " "))));
    }
    page.push_str("</tr>\n");
    for (at, row) in rows.iter().enumerate() {
        put(page, format_args!("<tr id=\"error-{}\">", at + 1));
        for &at in &shown {
            let cell = row.get(at).copied().unwrap_or_default();
            let shown = if columns[at] == CONTEXT { marked(cell) } else { escape(cell) };
            put(page, format_args!("<td>{shown}</td>"));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
}
