//! Reads files written by other programs: pyarrow 26.0 and datasets 5.2.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use kiln_dataset::{Column, Columns, Error, Row, Source, read, read_splits, rows};
use kiln_schema::{Example, LabelId, Question, Splits, TaggedText};

fn source(name: &str, text: &str, label: &str) -> Source {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let columns = Columns { text: text.into(), text_pair: None, label: Some(label.into()), flags: vec![] };
    Source::new(path, columns)
}

fn all(source: &Source) -> Result<Vec<Row>, Error> {
    rows(source)?.collect()
}

fn labels(source: &Source) -> Vec<Option<String>> {
    all(source).expect("rows").into_iter().map(|row| row.label).collect()
}

#[test]
fn a_saved_data_set_gives_each_split_its_own_and_class_names() {
    let folder = source("reviews", "sentence", "stars");
    let sources = Splits { train: vec![folder.clone()], validation: vec![folder], test: None };
    let (splits, labels) = read_splits::<kiln_schema::Example>(&sources, None).expect("two splits");
    assert_eq!(labels.names(), ["neg", "pos"]);
    let texts: Vec<_> = splits.train.iter().map(|example| (example.text.as_str(), example.target)).collect();
    assert_eq!(
        texts,
        [("房间很干净", 1), ("早餐\"不错\"", 1), ("服务太差了", 0), ("隔音不好", 0)],
        "two files, in order"
    );
    assert_eq!(splits.validation.len(), 2);
}

#[test]
fn a_saved_data_set_without_the_split_says_which_it_has() {
    let mut folder = source("reviews", "sentence", "stars");
    let message = all(&folder).expect_err("which split is not said").to_string();
    assert!(message.ends_with("no split is selected: the folder has `train`, `validation`"), "{message}");
    folder.split = Some("test".to_owned());
    let message = all(&folder).expect_err("no such split").to_string();
    assert!(message.ends_with("there is no split `test`: the folder has `train`, `validation`"), "{message}");

    folder.split = Some("validation".to_owned());
    let rows = all(&folder).expect("rows");
    assert_eq!(rows.iter().map(|row| row.line).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn parquet_keeps_class_names_too() {
    let file = source("reviews.parquet", "sentence", "stars");
    assert_eq!(labels(&file), ["pos", "pos", "neg", "neg"].map(|label| Some(label.to_owned())));
}

#[test]
fn every_plain_type_becomes_text() {
    for name in ["types.parquet", "types.arrow", "types-footer.arrow"] {
        let column = |label| labels(&source(name, "text", label));
        let some = |labels: [&str; 4]| labels.map(|label| Some(label.to_owned())).to_vec();
        assert_eq!(column("d"), some(["x", "y", "x", "z"]), "{name}: a dictionary");
        assert_eq!(column("f"), some(["1", "2.5", "3", "NaN"]), "{name}: floats");
        let booleans: Vec<_> = column("b").into_iter().flatten().collect();
        assert_eq!(booleans, ["true", "false", "true"], "{name}: booleans, of which one is null");
        let texts: Vec<_> = all(&source(name, "text", "d")).expect("rows").into_iter().map(|row| row.text).collect();
        assert_eq!(texts, ["a", "b", "", "d"], "{name}: large strings, of which one is null");
        if name != "types.parquet" {
            assert_eq!(column("i8"), some(["1", "2", "3", "4"]), "{name}: small integers");
            assert_eq!(column("u16"), some(["1", "2", "3", "4"]), "{name}: small integers");
        }
    }
}

/// A file of two row groups, and a folder of `save_to_disk`.
const NESTED: [&str; 2] = ["nested.parquet", "nested"];

#[test]
fn lists_of_units_and_tags_are_tagged_texts() {
    for name in NESTED {
        let (texts, labels) = read::<TaggedText>(&[source(name, "text", "label")], None).expect(name);
        let shown = |text: &TaggedText| {
            let tags: Vec<&str> = text.tags.iter().map(|tag| labels.name(*tag)).collect();
            (text.text.clone(), tags.join(" "))
        };
        let expected = [("EU rejects it", "B-ORG O O"), ("Bonn", "B-LOC")];
        let expected = expected.map(|(text, tags)| (text.to_owned(), tags.to_owned()));
        assert_eq!(texts.iter().map(shown).collect::<Vec<_>>(), expected, "{name}: the text without units is left out");
    }
}

#[test]
fn a_list_of_classes_is_several_labels_and_not_one() {
    for name in NESTED {
        let source = source(name, "text", "topics");
        let (examples, labels) = read::<Example<Vec<LabelId>>>(std::slice::from_ref(&source), None).expect(name);
        assert_eq!(labels.names(), ["anger", "fear", "joy"]);
        let targets: Vec<Vec<LabelId>> = examples.into_iter().map(|example| example.target).collect();
        assert_eq!(targets, [vec![1, 2], vec![], vec![0]], "{name}");
        let message = read::<Example>(&[source], None).expect_err("one label").to_string();
        assert!(message.contains("row 1: column `topics` holds a list"), "{message}");
    }
}

#[test]
fn rows_of_questions_have_their_answers() {
    for name in NESTED {
        let (questions, _) = read::<Question>(&[source(name, "text", "label")], None).expect(name);
        let answers = |question: &Question| {
            question
                .answers
                .iter()
                .map(|answer| format!("{}@{}", answer.text, answer.start))
                .collect::<Vec<_>>()
                .join(" ")
        };
        let shown: Vec<_> = questions.iter().map(|question| (question.id.as_str(), answers(question))).collect();
        let expected = [("7", "EU@4"), ("8", "Bonn@9 in Bonn@0"), ("9", "")];
        assert_eq!(shown, expected.map(|(id, answers)| (id, answers.to_owned())), "{name}");
    }
    let message = read::<Question>(&[source("types.arrow", "text", "d")], None).expect_err("no questions").to_string();
    assert!(message.contains("types.arrow, row 1: there is no column `question`"), "{message}");
}

#[test]
fn small_integers_in_parquet_are_refused_with_advice() {
    let message = all(&source("types.parquet", "text", "i8")).expect_err("not built in").to_string();
    assert!(message.contains("column `i8` holds Int8"), "{message}");
    assert!(message.contains("store it with 32 or 64 bits"), "{message}");
}

#[test]
fn faults_name_the_file_the_row_and_the_columns() {
    for name in ["types.parquet", "types.arrow", "types-footer.arrow"] {
        let fault = |text: &str, label: &str| all(&source(name, text, label)).expect_err("a fault").to_string();
        let missing = fault("txt", "d");
        assert!(
            missing.contains("there is no column `txt` (did you mean `text`?): the columns are `text`, `d`"),
            "{missing}"
        );
        let nested = fault("text", "nest");
        assert!(nested.contains(&format!("{name}, row 1: column `nest` holds ")), "{nested}");

        let mut by_index = source(name, "text", "d");
        by_index.columns.label = Some(Column::Index(1));
        assert_eq!(labels(&by_index).len(), 4);
        by_index.columns.label = Some(Column::Index(99));
        let message = all(&by_index).expect_err("no such column").to_string();
        assert!(message.contains("there is no column 99: the row has 9 fields"), "{message}");
    }
}

/// Reads a fixture repeatedly, each time with one byte changed.
#[test]
fn a_changed_byte_is_an_error_or_other_content_and_never_a_panic() {
    for name in ["types.parquet", "types.arrow", "types-footer.arrow"] {
        let good = std::fs::read(source(name, "text", "d").path).expect("a fixture");
        change_bytes(&source(name, "text", "d"), 0..good.len());
    }
}

/// Does the same for the pages only: pages of other types, and version 2 pages with other encodings, with and without
/// compression.
#[test]
fn a_changed_byte_of_a_parquet_page_is_an_error_or_other_content_and_never_a_panic() {
    change_bytes(&source("types.parquet", "f", "b"), pages("types.parquet"));
    change_bytes(&source("nested.parquet", "text", "topics"), pages("nested.parquet"));
    for name in ["pages-zstd.parquet", "pages-plain.parquet"] {
        change_bytes(&source(name, "text", "n"), pages(name));
        change_bytes(&source(name, "prefixed", "f"), pages(name));
        change_bytes(&source(name, "text", "b"), pages(name));
    }
}

/// The bytes of a Parquet file before its footer.
fn pages(name: &str) -> Range<usize> {
    let content = std::fs::read(source(name, "text", "d").path).expect("a fixture");
    let (_, length) = content[..content.len() - 4].split_last_chunk().expect("a footer's length");
    0..content.len() - 8 - u32::from_le_bytes(*length) as usize
}

fn change_bytes(source: &Source, range: Range<usize>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let good = std::fs::read(&source.path).expect("a fixture");
    let rows = all(source).expect("the fixture is whole").len();
    let name = source.path.file_name().and_then(|name| name.to_str()).expect("a name in ASCII");
    let changed = Source { path: folder.path().join(name), ..source.clone() };
    // Bytes are changed in place, because some file systems wait for the disk when a file is created.
    std::fs::write(&changed.path, &good).expect("a small file");
    let mut file = File::options().write(true).open(&changed.path).expect("it was just written");
    let mut errors = 0;
    for at in range.clone() {
        for value in [0x7f, 0xff, good[at] ^ (1 << (at % 8))] {
            write_byte(&mut file, at, value);
            match all(&changed) {
                Ok(read) if name == "types-footer.arrow" => assert!(read.len() <= rows, "byte {at} as {value}"),
                Ok(read) => assert_eq!(read.len(), rows, "{name}, byte {at} as {value}"),
                Err(error) => {
                    errors += 1;
                    assert!(error.to_string().contains(name), "byte {at} as {value}: {error}");
                }
            }
        }
        write_byte(&mut file, at, good[at]);
    }
    assert!(errors > range.len() / 4, "{name}: {errors} errors");
}

fn write_byte(file: &mut File, at: usize, value: u8) {
    file.seek(SeekFrom::Start(at as u64)).expect("a place in the file");
    file.write_all(&[value]).expect("one byte");
}

#[test]
fn damaged_files_are_faults_and_not_panics() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["types.parquet", "types.arrow", "types-footer.arrow"] {
        let good = std::fs::read(source(name, "text", "d").path).expect("a fixture");
        for content in [&b""[..], b"no columns at all, but a text", &good[..good.len() / 2]] {
            let mut damaged = source(name, "text", "d");
            damaged.path = folder.path().join(name);
            std::fs::write(&damaged.path, content).expect("a small file");
            let message = all(&damaged).expect_err("a damaged file").to_string();
            assert!(message.contains(name), "{message}");
        }
    }
}
