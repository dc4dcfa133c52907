use crate::lines::Lines;
use crate::picks::Picks;
use crate::{Column, Columns, Error, Row, Source};

/// Iterates over the rows of a CSV or TSV file.
#[derive(Debug)]
pub(crate) struct Delimited {
    lines: Lines,
    dialect: Dialect,
    columns: Columns,
    picks: Picks,
    /// The most fields that a row may have; none before the first row is read.
    width: Option<usize>,
}

/// Names that columns usually have, in lower case.
const USUAL_NAMES: &str = "id idx guid index text texts text_a text_b text_pair pair text1 text2 sentence sentences \
    sentence1 sentence2 premise hypothesis question question1 question2 query content comment review label labels class \
    category target sentiment intent score 文本 内容 评论 标签 类别 情感";

/// The rules for dividing a record into fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Separated by commas, with quotes. A quoted field may contain line breaks.
    Csv,
    /// Separated by tabs, without quotes.
    Tsv,
}

impl Dialect {
    fn separator(self) -> char {
        match self {
            Self::Csv => ',',
            Self::Tsv => '\t',
        }
    }
}

impl Delimited {
    pub(crate) fn open(source: &Source, dialect: Dialect) -> Result<Self, Error> {
        let mut lines = Lines::open(source)?;
        let mut width = None;
        let picks = if source.header {
            let (line, names) = next_record(&mut lines, dialect)?.unwrap_or((1, Vec::new()));
            width = Some(names.len());
            let names: Vec<String> = names.iter().map(|name| name.trim().to_owned()).collect();
            Picks::by_names(&source.columns, &names, &lines.place_of(line))?
        } else {
            Picks::by_indices(&source.columns, lines.path())?
        };
        Ok(Self { lines, dialect, columns: source.columns.clone(), picks, width })
    }

    fn check(&mut self, line: u64, fields: &[String]) -> Result<(), Error> {
        match self.width {
            Some(width) => self.check_width(width, line, fields),
            None => {
                // Rows of a TSV file without a header may have further columns, as those of STS-B. A tab in a text is rare.
                self.width = Some(if self.dialect == Dialect::Csv { fields.len() } else { usize::MAX });
                self.check_first(line, fields)
            }
        }
    }

    /// Refuses a first row in which at least two cells, or the only cell of a CSV file, and all those of the requested columns
    /// are usual column names.
    fn check_first(&self, line: u64, fields: &[String]) -> Result<(), Error> {
        let is_name = |cell: &str| USUAL_NAMES.split_whitespace().any(|name| name == cell.trim().to_lowercase());
        let mut picks = [Some(self.picks.text), self.picks.text_pair, self.picks.label].into_iter().flatten();
        let cells = fields.iter().filter(|cell| is_name(cell)).map(|cell| cell.trim().to_owned());
        let cells: Vec<String> = cells.collect();
        let are_enough = cells.len() > 1 || (fields.len() == 1 && self.dialect == Dialect::Csv && !cells.is_empty());
        if are_enough && picks.all(|at| fields.get(at).is_some_and(|cell| is_name(cell))) {
            return Err(Error::HeaderAsRow { place: self.lines.place_of(line), cells });
        }
        Ok(())
    }

    /// Refuses a row with more fields than expected: a text that contains the separator moves the fields after it.
    fn check_width(&self, expected: usize, line: u64, fields: &[String]) -> Result<(), Error> {
        if fields.iter().skip(expected).all(|field| field.trim().is_empty()) {
            return Ok(());
        }
        let separator = self.dialect.separator();
        Err(Error::ManyFields { place: self.lines.place_of(line), fields: fields.len(), expected, separator })
    }
}

impl Iterator for Delimited {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        next_record(&mut self.lines, self.dialect).transpose().map(|record| {
            let (line, mut fields) = record?;
            self.check(line, &fields)?;
            let count = fields.len();
            let few = |index: usize| Error::FewFields { place: self.lines.place_of(line), index, fields: count };
            let field = |index: usize| fields.get(index).cloned().ok_or_else(|| few(index));
            let text_pair = self.picks.text_pair.map(field).transpose()?;
            let label = self.picks.label.map(field).transpose()?;
            let mut labels = None;
            if !self.picks.flags.is_empty() {
                let bad = |column: &_, found| Error::Flag {
                    place: self.lines.place_of(line),
                    column: Column::clone(column),
                    found,
                };
                labels = Some(self.columns.flagged(|at, _| field(self.picks.flags[at]).map(Some), bad)?);
            }
            // Moved out last, without a copy, because a text may be large.
            let text = fields.get_mut(self.picks.text).map(std::mem::take).ok_or_else(|| few(self.picks.text))?;
            Ok(Row::new(text, text_pair, label, line).with_labels(labels))
        })
    }
}

/// Reads the next record, and returns its first line number and its fields.
pub(crate) fn next_record(lines: &mut Lines, dialect: Dialect) -> Result<Option<(u64, Vec<String>)>, Error> {
    let Some(line) = lines.next_filled_line()? else {
        return Ok(None);
    };
    let start = lines.line();
    let fields = match dialect {
        Dialect::Tsv => line.split('\t').map(str::to_owned).collect(),
        Dialect::Csv => quoted_fields(line, lines)?,
    };
    Ok(Some((start, fields)))
}

/// Divides a record into fields as in RFC 4180. Reads further lines while a quoted field is open.
///
/// This is not left to a library, because errors need the exact first line of a record and the place of an unclosed
/// quote, and because lines are decoded one by one.
fn quoted_fields(mut line: String, lines: &mut Lines) -> Result<Vec<String>, Error> {
    enum State {
        Start,
        Plain,
        Quoted,
        /// After a quote in a quoted field: the end of the field, or the first of two quotes that encode one.
        Quote,
    }
    let start = lines.line();
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut state = State::Start;
    loop {
        for char in line.chars() {
            state = match (state, char) {
                (State::Start, '"') => State::Quoted,
                (State::Quoted, '"') => State::Quote,
                (State::Start | State::Plain | State::Quote, ',') => {
                    fields.push(std::mem::take(&mut field));
                    State::Start
                }
                (State::Quoted, char) | (State::Quote, char @ '"') => {
                    field.push(char);
                    State::Quoted
                }
                (_, char) => {
                    field.push(char);
                    State::Plain
                }
            };
        }
        if !matches!(state, State::Quoted) {
            fields.push(field);
            return Ok(fields);
        }
        field.push('\n');
        line = lines.next_line()?.ok_or_else(|| Error::OpenQuote { place: lines.place_of(start) })?;
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{cell, file};

    #[test]
    fn a_header_is_not_read_as_a_row() {
        let fault = file("a.csv", "\n\"Text\", label\n好,1\n").fault();
        let expected = "a.csv, line 2: found `Text`, `label`, which are column names: \
                        set `header = true` or `--header`, or remove the line";
        assert_eq!(fault, expected);
        assert!(file("a.tsv", "标签\t文本\n").fault().contains("`标签`, `文本`"));
        // For prediction, one column is enough.
        let texts = |name, content| {
            let mut file = file(name, content);
            file.source.columns.label = None;
            file
        };
        assert!(texts("a.csv", "id,text\n1,好\n").fault().contains("found `id`, `text`, which"));
        assert!(texts("a.tsv", "text\tn\tlabel\n").fault().contains("found `text`, `label`, which"));
        assert_eq!(texts("a.csv", "好,text,label\n").cells(), [cell(1, "好", "")]);
        assert_eq!(texts("a.tsv", "text\ntext\n").cells(), [cell(1, "text", ""), cell(2, "text", "")]);
        // Texts that are such words, with other labels or in other rows.
        assert_eq!(file("a.csv", "text,1\ntext,label\n").cells(), [cell(1, "text", "1"), cell(2, "text", "label")]);
        assert_eq!(file("a.csv", "text,label\na,1\n").with_header("text", "label").cells(), [cell(2, "a", "1")]);
    }

    #[test]
    fn a_row_has_no_more_fields_than_the_first() {
        let content = "text,label\n好,1\n书很好,书很精彩464,1\n";
        assert_eq!(
            file("a.csv", content).with_header("text", "label").fault(),
            "a.csv, line 3: found 3 fields, expected 2 as in the first row: \
             if a text contains a comma, put the text in double quotes; otherwise remove the extra fields"
        );
        assert_eq!(
            file("a.tsv", "text\tlabel\n\n很\t好\t1\n").with_header("text", "label").fault(),
            "a.tsv, line 3: found 3 fields, expected 2 as in the first row: \
             if a text contains a tab, replace the tab; otherwise remove the extra fields"
        );
        assert_eq!(file("a.tsv", "好\t1\n很好\t1\tx\n").cells(), [cell(1, "好", "1"), cell(2, "很好", "1")]);
        // Trailing separators, and rows that are shorter than the first.
        assert_eq!(file("a.csv", "a,1\nb,0,, \n").cells(), [cell(1, "a", "1"), cell(2, "b", "0")]);
        assert_eq!(file("a.csv", "a,1,x,\nb,0\n").cells(), [cell(1, "a", "1"), cell(2, "b", "0")]);
        assert_eq!(file("a.csv", "a,1\n\"b, c\",0\n").cells(), [cell(1, "a", "1"), cell(2, "b, c", "0")]);
    }

    #[test]
    fn quotes_in_a_tsv_are_text() {
        let file = file("a.tsv", "\"好\" 房间\t1\n\"没有关上\t0\n");
        assert_eq!(file.cells(), [cell(1, "\"好\" 房间", "1"), cell(2, "\"没有关上", "0")]);
    }

    #[test]
    fn marks_endings_blank_lines_and_wide_spaces() {
        let file = file("a.tsv", "\u{feff}\u{3000}a\u{3000}b \t1\r\n\r\n  \n\t0\n  c\t2");
        assert_eq!(file.cells(), [cell(1, "a\u{3000}b", "1"), cell(4, "", "0"), cell(5, "c", "2")]);
    }

    #[test]
    fn csv_is_quoted_as_rfc_4180_says() {
        let content = "text,label\r\n\n\"one\r\ntwo, \"\"three\"\"\",1\r\nplain \"x\",0\r\n\"\",2\n\n\"last\",3";
        let file = file("a.csv", content).with_header("text", "label");
        let cells =
            [cell(3, "one\ntwo, \"three\"", "1"), cell(5, "plain \"x\"", "0"), cell(6, "", "2"), cell(8, "last", "3")];
        assert_eq!(file.cells(), cells);
    }

    #[test]
    fn carriage_returns_end_lines_where_there_are_no_line_feeds() {
        let cells = [cell(1, "a", "1"), cell(2, "b", "0"), cell(4, "c", "1")];
        for end in ["", "\r"] {
            assert_eq!(file("a.tsv", format!("a\t1\rb\t0\r\rc\t1{end}")).cells(), cells);
        }
        let (gbk, _, _) = encoding_rs::GBK.encode("房间很大，早餐不错\t1\r服务太差\t0\r");
        assert_eq!(file("a.tsv", &gbk).cells(), [cell(1, "房间很大，早餐不错", "1"), cell(2, "服务太差", "0")]);
        assert_eq!(file("a.csv", "\"a\rb\",1").cells(), [cell(1, "a\nb", "1")]);
        assert_eq!(file("a.tsv", "a\rb\t1\nc\t0\n").cells(), [cell(1, "a\rb", "1"), cell(2, "c", "0")]);
        let broken = file("a.tsv", b"a\t1\rb\xff\xff\xff\t0\r").fault();
        assert!(broken.starts_with("a.tsv, line 2: the bytes ff ff ff 09 are not UTF-8"), "{broken}");
    }

    #[test]
    fn utf16_is_read_and_half_a_character_is_an_error() {
        let bytes = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let long = "房😀间".repeat(30_000);
        let whole = file("a.tsv", bytes(&format!("\u{feff}{long}\t1\r\n差\t0\r\n")));
        assert_eq!(whole.cells(), [cell(1, &long, "1"), cell(2, "差", "0")]);
        let mut unmarked = file("a.tsv", bytes("good\t1\nbad\t0\n"));
        unmarked.source.encoding = Some(crate::Encoding::Utf16Le);
        assert_eq!(unmarked.cells(), [cell(1, "good", "1"), cell(2, "bad", "0")]);
        let mut half = bytes("\u{feff}good\t1\n");
        half.extend([0x3d, 0xd8, 0x0a, 0x00]);
        let fault = file("a.tsv", half).fault();
        assert!(fault.starts_with("a.tsv: the file is damaged: line 2 is not UTF-16"), "{fault}");
    }

    #[test]
    fn a_name_of_two_columns_is_refused_and_other_columns_may_share_one() {
        let content = "text,label,text,,\na,1,b,,\n";
        assert_eq!(
            file("a.csv", content).with_header("text", "label").fault(),
            "a.csv, line 1: columns 0 and 2 (counted from 0) are both called `text`; \
             give the column's index, or rename one of them"
        );
        assert_eq!(file("a.csv", content).with_header("2", "label").cells(), [cell(2, "b", "1")]);
    }

    #[test]
    fn a_quote_that_is_never_closed_is_a_fault() {
        let fault = file("a.csv", "a,1\n\n\"b,0\nc,1\n").fault();
        assert_eq!(fault, "a.csv, line 3: a quote that opens in this record is never closed");
    }

    #[test]
    fn missing_columns_are_named() {
        assert_eq!(
            file("a.tsv", "a\t1\n\nb\n").fault(),
            "a.tsv, line 3: there is no column 1: the row has 1 field (columns count from 0)"
        );
        assert_eq!(
            file("a.csv", "\ntext,label\na,1\n").with_header("text", "labels").fault(),
            "a.csv, line 2: there is no column `labels` (did you mean `label`?): the columns are `text`, `label`"
        );
        let mut named = file("a.tsv", "text\tlabel\n").with_header("text", "label");
        named.source.header = false;
        assert!(named.fault().starts_with("a.tsv: column `text`: the file is read without a header"));
    }

    #[test]
    fn gbk_is_found_out_and_damage_is_named() {
        let (gbk, _, _) = encoding_rs::GBK.encode("房间很大，早餐不错\t1\n服务太差\t0\n");
        let mut found = file("a.tsv", &gbk);
        assert_eq!(found.cells(), [cell(1, "房间很大，早餐不错", "1"), cell(2, "服务太差", "0")]);
        found.source.encoding = Some(crate::Encoding::Utf8);
        assert!(found.fault().starts_with("a.tsv, line 1: the bytes b7 bf bc e4 are not UTF-8"), "{}", found.fault());

        let damaged = file("a.tsv", b"\xe5\xa5\xbd\tpositive\n\xff\xfe\xfa\xfb\x00bad\tnegative\n");
        assert!(damaged.fault().starts_with("a.tsv, line 2: the bytes ff fe fa fb are not UTF-8"));
        let inside_quotes = file("a.csv", b"\"\xe5\xa5\xbd\n\xff\",1\n");
        assert!(inside_quotes.fault().starts_with("a.csv, line 2: "), "{}", inside_quotes.fault());
    }

    #[test]
    fn pairs_and_rows_without_labels() {
        let mut pairs = file("a.tsv", "a\tb\n");
        pairs.source.columns = crate::Columns { text: 1.into(), text_pair: Some(0.into()), label: None, flags: vec![] };
        let rows = pairs.rows();
        assert_eq!((rows[0].text.as_str(), rows[0].text_pair.as_deref()), ("b", Some("a")));
        assert_eq!(rows[0].label, None);
    }

    #[test]
    fn the_rows_end_after_a_fault() {
        let file = file("a.tsv", "a\t1\nb\nc\t1\n");
        let rows: Vec<_> = crate::rows(&file.source).expect("it opens").map(|row| row.is_ok()).collect();
        assert_eq!(rows, [true, false]);
    }
}
