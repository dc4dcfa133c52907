use std::io::{self, Write};
use std::path::{Path, PathBuf};

use kiln_files::FileWriter;
use kiln_schema::{Example, LabelSet, Splits};
use serde::Serialize;

use crate::Error;

/// Writes each split to `<split>.jsonl` in a folder, and returns the paths. The folder is created if needed.
///
/// Each line is `{"text": …, "text_pair": …, "label": …}`; `text_pair` is omitted for a single text. The format is JSON
/// Lines because TSV cannot represent a text with a tab or a line break. A file gets its final name only when it is
/// complete.
///
/// # Errors
/// [`Error::Write`] when a folder or file cannot be written.
///
/// # Panics
/// When an example's target is not an id of `labels`.
pub fn write_splits(splits: &Splits<Vec<Example>>, labels: &LabelSet, folder: &Path) -> Result<Splits<PathBuf>, Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    let Splits { train, validation, test } = splits;
    let borrowed = Splits { train, validation, test: test.as_ref() };
    borrowed.try_map(|split, examples| {
        let path = folder.join(format!("{split}.jsonl"));
        write(examples, labels, &path).map_err(failed(&path))?;
        Ok(path)
    })
}

fn write(examples: &[Example], labels: &LabelSet, path: &Path) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        text: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        text_pair: Option<&'a str>,
        label: &'a str,
    }
    let mut writer = FileWriter::create(path)?;
    for example in examples {
        let (text, text_pair) = example.texts();
        serde_json::to_writer(&mut writer, &Line { text, text_pair, label: labels.name(example.target) })?;
        writer.write_all(b"\n")?;
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Columns, Source, read_splits};

    #[test]
    fn what_is_written_reads_the_same() {
        let example =
            |text: &str, target| Example { text: text.to_owned(), text_pair: Some("\"b\"".to_owned()), target };
        let splits = Splits {
            train: vec![example("a\tb\nc", 1), example("😀\u{2028}好", 0)],
            validation: vec![example("", 0)],
            test: Some(vec![example("x", 1)]),
        };
        let labels = LabelSet::new(["no", "yes"]).expect("two names");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let paths = write_splits(&splits, &labels, &folder.path().join("new")).expect("a folder to write to");
        assert!(paths.train.ends_with("new/train.jsonl"));

        let columns = Columns {
            text: "text".into(),
            text_pair: Some("text_pair".into()),
            label: Some("label".into()),
            flags: vec![],
        };
        let sources = paths.try_map(|_, path| Ok::<_, Error>(vec![Source::new(path, columns.clone())]));
        let read = read_splits(&sources.expect("nothing fails"), Some(labels)).expect("the same rows");
        assert_eq!(read.0, splits);
    }
}
