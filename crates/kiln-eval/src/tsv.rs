/// A table of tab-separated values with a header. Tabs and line breaks within a cell become spaces.
pub fn tsv<const N: usize>(columns: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = columns.join("\t") + "\n";
    for row in rows {
        table.push_str(&row.map(|cell| cell.replace(['\t', '\n', '\r'], " ")).join("\t"));
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_line() {
        let rows = [["1", "a\tb"], ["2", "c\r\nd"]].map(|row| row.map(str::to_owned));
        assert_eq!(tsv(["row", "label"], rows), "row\tlabel\n1\ta b\n2\tc  d\n");
    }
}
