//! Invalid inputs and their error messages.

use std::fs;
use std::sync::Arc;

use datafusion::arrow::array::{Int64Array, StringArray};

use crate::place::{Place, files, reviews};
use crate::tables;

/// 250 rows; rows 7 and 130 have no text.
fn with_nulls() -> Place {
    let place = Place::new();
    let mut texts: Vec<_> = reviews().into_iter().map(|(text, _)| Some(text)).take(250).collect();
    (texts[7], texts[130]) = (None, None);
    tables::write(&place.path("in/a.parquet"), 0, &texts);
    place
}

#[test]
fn a_row_without_a_text_ends_the_job() {
    let ended = with_nulls().run("out", &["--rows-per-shard", "1000"]);
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    assert!(
        ended.log.contains("in/a.parquet: row 7 (from 0): column `text`: found null, expected text"),
        "{}",
        ended.log
    );
}

#[test]
fn or_it_is_set_aside_with_its_position() {
    let place = with_nulls();
    let written = place.ran("out", &["--bad-rows", "set-aside", "--rows-per-shard", "100"]);
    assert!(written.manifest["rows"] == 248 && written.manifest["bad_rows"] == 2, "{}", written.manifest);
    let rows = tables::read(&place.path("out"), &written.names());
    let expected: Vec<i64> = (0..250).filter(|row| ![7, 130].contains(row)).collect();
    assert_eq!(tables::numbers(&rows, "id"), expected);
    let folder = place.path("out/_bad");
    let mut bad: Vec<String> = files(&folder, ".jsonl")
        .iter()
        .flat_map(|name| {
            fs::read_to_string(folder.join(name)).expect("text").lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    bad.sort();
    assert_eq!(bad.len(), 2, "{bad:?}");
    for (line, row) in bad.iter().zip(["\"row\":130", "\"row\":7"]) {
        assert!(line.contains(row) && line.contains("in/a.parquet") && line.contains("found null"), "{line}");
    }
}

#[test]
fn columns_that_are_missing_or_no_text_are_named() {
    let place = Place::new();
    tables::write_columns(&place.path("in/a.parquet"), vec![("text", Arc::new(Int64Array::from(vec![1, 2])))]);
    for (options, expected) in [
        (vec![], "in/a.parquet: column `text`: found Int64, expected text (a string)"),
        (vec!["--text-column", "review"], "found no column `review`, expected it among the columns text"),
        (vec!["--input", "nowhere"], "nowhere: found no file there, expected Parquet files (.parquet)"),
        (vec!["--input", "http://a/b"], "found the scheme `http`, expected a path, file:// or s3://"),
    ] {
        let ended = place.run("out", &options);
        assert!(ended.code == Some(1) && ended.log.contains(expected), "{options:?}: {}", ended.log);
    }
    let texts = || Arc::new(StringArray::from(vec!["好"]));
    for (input, output) in [("in", "in/out"), ("in/*/*.parquet", "in/out"), ("in/", "in")] {
        let ended = place.run(output, &["--input", input]);
        let expected = format!("among those of the input `{input}`");
        assert!(ended.code == Some(1) && ended.log.contains(&expected), "{}", ended.log);
        assert!(!place.path("in/out").exists(), "nothing is written");
    }
    tables::write_columns(&place.path("in/a.parquet"), vec![("text", texts()), ("kiln_prediction", texts())]);
    let ended = place.run("out", &[]);
    assert!(ended.log.contains("found a column `kiln_prediction` already"), "{}", ended.log);
}

#[test]
fn patterns_and_pairs_are_read() {
    let place = Place::new();
    let texts = |count: usize| Arc::new(StringArray::from(vec!["房间很干净"; count]));
    for (name, count) in [("in/a/x-1.parquet", 3), ("in/b/x-2.parquet", 2), ("in/b/y.parquet", 5)] {
        tables::write_columns(&place.path(name), vec![("question", texts(count)), ("context", texts(count))]);
    }
    let columns = ["--text-column", "question", "--text-pair-column", "context"];
    let written = place.ran("out", &[&["--input", "in/**/x-?.parquet"], &columns[..]].concat());
    assert_eq!(written.manifest["rows"], 5);
    let rows = tables::read(&place.path("out"), &written.names());
    let answers = tables::texts(&rows, "kiln_prediction");
    assert!(answers.iter().flatten().all(|answer| answer.contains("\"text_pair\":\"房间很干净\"")), "{answers:?}");
}

/// Changes single bytes of a valid file: either an error names the file, or the rows are read.
#[test]
fn damaged_files_are_named() {
    let place = Place::new();
    let path = place.path("in/a.parquet");
    tables::write_reviews(&path, 0, 150);
    let good = fs::read(&path).expect("it is there");
    let cut = good[..good.len() / 2].to_vec();
    let near_the_end = (1..8).map(|step| good.len() - 8 - 37 * step);
    let flipped = near_the_end.chain([4, 400, good.len() / 2]).map(|at| {
        let mut bytes = good.clone();
        bytes[at] ^= 0xff;
        bytes
    });
    let mut refused = 0;
    for (number, bytes) in [cut, b"PAR1".to_vec(), vec![]].into_iter().chain(flipped).enumerate() {
        fs::write(&path, bytes).expect("it is writable");
        let ended = place.run(&format!("out-{number}"), &[]);
        match ended.code {
            Some(0) => {}
            code => {
                assert!(code == Some(1) && ended.log.contains("in/a.parquet: "), "{number}: {code:?} {}", ended.log);
                refused += 1;
            }
        }
    }
    assert!(refused >= 5, "{refused}");
}
