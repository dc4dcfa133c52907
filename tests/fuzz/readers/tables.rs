//! Tables, tagged texts, questions, raw text, Parquet and Arrow files.

use std::fmt::Debug;
use std::path::Path;

use kiln_dataset::{Column, Columns, Format, Passage, Record, Source, corpus, read};
use kiln_pretrain::TokenStoreConfig;
use kiln_schema::{Example, LabelId, Question, TaggedText};
use kiln_tokenize::{Tokenizer, VocabularyConfig};

use super::{Answer, Context, Input, Judged, Reader, fingerprint, workspace_file};
use crate::seed::Seed;

pub const TABLES: Reader =
    Reader { name: "tables", share: 10, seeds: table_seeds, read: read_table, judge: judge_table, repeated: true };

pub const CORPUS: Reader =
    Reader { name: "corpus", share: 3, seeds: corpus_seeds, read: read_corpus, judge: judge_text, repeated: true };

pub const PARQUET: Reader =
    Reader { name: "parquet", share: 8, seeds: parquet_seeds, read: read_columnar, judge: judge_rows, repeated: true };

pub const ARROW: Reader =
    Reader { name: "arrow", share: 8, seeds: arrow_seeds, read: read_columnar, judge: judge_rows, repeated: true };

const TSV: &str = "房间很干净\t好\n早餐不错\t好\n服务太差了\t坏\nclean room, nice\t好\n隔音不好\t坏\n\"没有关上\t坏\n";
const CSV: &str = "text,label\n\"one, \"\"two\"\"\",a\nplain,b\n\"line\nbreak\",a\n房间,b\n";
const JSONL: &str = "{\"text\": \"房间\", \"label\": 1}\n{\"text\": \"clean\\n\", \"label\": \"b\"}\n{\"text\": null, \"label\": true}\n";
const FLAGS: &str = "text,rude,sad\na,1,0\nb,0,1\nc,1,1\n";
const NUMBERS: &str = "a\t1.5\nb\t-2\nc\t0\n";
const PAIRS: &str = "a\tb\t0\nc\td\t1\ne\tf\t0\n";
const CONLL: &str = "张 B-PER\n三 I-PER\n到 O\n北 B-LOC\n京 I-LOC\n\nJohn B-PER\nruns O\n";
const LINES: &str = "张 三 到 北 京\tB-PER I-PER O B-LOC I-LOC\n他 来\tO O\n";
const WORDS: &str = "今天 天气 很 好\n我们 去 北京\n";
const SPANS: &str = "{\"text\": \"张三到北京\", \"entities\": [{\"start\": 0, \"end\": 2, \"label\": \"PER\"}]}\n{\"text\": \"他来\", \"entities\": []}\n";
const SQUAD: &str = r#"{"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": "The room is clean. 房间很干净。", "qas": [
{"id": "1", "question": "What is clean?", "answers": [{"text": "The room", "answer_start": 0}]},
{"id": "2", "question": "谁？", "is_impossible": true, "answers": []}]}]}]}"#;

fn table_seeds(_: &Context) -> anyhow::Result<Vec<Seed>> {
    let (gbk, _, _) = encoding_rs::GBK.encode(TSV);
    Ok(vec![
        Seed::new("tsv").with("train.tsv", TSV).piped(),
        Seed::new("csv").with("train.csv", CSV).piped(),
        Seed::new("jsonl").with("train.jsonl", JSONL).piped(),
        Seed::new("gbk").with("train.tsv", gbk).piped(),
        Seed::new("flags").with("train.csv", FLAGS).piped(),
        Seed::new("numbers").with("train.tsv", NUMBERS).piped(),
        Seed::new("pairs").with("train.tsv", PAIRS).piped(),
        Seed::new("conll").with("train.conll", CONLL).piped(),
        Seed::new("lines").with("train.conll", LINES).piped(),
        Seed::new("words").with("train.conll", WORDS).piped(),
        Seed::new("spans").with("train.jsonl", SPANS).piped(),
        Seed::new("squad").with("train.json", SQUAD).piped(),
    ])
}

fn read_table(input: &Input<'_>) -> anyhow::Result<Answer> {
    let columns = |text: Column, label: Column| Columns { text, text_pair: None, label: Some(label), flags: vec![] };
    let source = |file: &str, columns| Source::new(input.folder.join(file), columns);
    let by_place = || columns(0.into(), 1.into());
    let by_name = || columns("text".into(), "label".into());
    match input.seed {
        "tsv" | "gbk" => rows::<Example<LabelId>>(source("train.tsv", by_place())),
        "csv" => rows::<Example<LabelId>>(Source { header: true, ..source("train.csv", by_name()) }),
        "jsonl" => rows::<Example<LabelId>>(source("train.jsonl", by_name())),
        "flags" => {
            let flags = vec!["rude".to_owned(), "sad".to_owned()];
            let columns = Columns { label: None, flags, ..by_name() };
            rows::<Example<Vec<LabelId>>>(Source { header: true, ..source("train.csv", columns) })
        }
        "numbers" => rows::<Example<f64>>(source("train.tsv", by_place())),
        "pairs" => {
            let columns = Columns { text_pair: Some(1.into()), label: Some(2.into()), ..by_place() };
            rows::<Example<Vec<LabelId>>>(source("train.tsv", columns))
        }
        "spans" => rows::<TaggedText>(source("train.jsonl", by_name())),
        "squad" => rows::<Question>(Source { format: Some(Format::Squad), ..source("train.json", by_name()) }),
        _ => rows::<TaggedText>(source("train.conll", by_name())),
    }
}

fn rows<T: Record + Debug>(source: Source) -> anyhow::Result<Answer> {
    let (items, labels) = read::<T>(&[source], None)?;
    Ok(Answer { fingerprint: fingerprint(&(&items, labels.names())), rows: items.len(), problem: None })
}

/// Finds lost lines of a table, rows without a line, and invalid UTF-8 that was read.
fn judge_table(judged: &Judged<'_>) -> Option<String> {
    let by_line = judged.mutant.path.ends_with(".tsv") || judged.mutant.path.ends_with(".jsonl");
    if let (true, Ok(text)) = (by_line, std::str::from_utf8(&judged.mutant.last().bytes)) {
        let visible = |line: &&str| line.chars().any(|char| !char.is_whitespace() && char != '\u{feff}');
        // Lines may end with a lone carriage return, if all of them do.
        let (least, most) = (text.split('\n').filter(visible).count(), text.split(['\n', '\r']).count());
        if !(least..=most).contains(&judged.answer.rows) {
            return Some(format!("{} rows of {least} lines with text", judged.answer.rows));
        }
    }
    judge_text(judged)
}

/// Finds invalid UTF-8 that was read.
fn judge_text(judged: &Judged<'_>) -> Option<String> {
    let invalid = judged.mutant.only().is_some_and(|change| change.invalid_utf8);
    invalid.then(|| "bytes that are not UTF-8 were read".to_owned())
}

const CORPUS_TEXT: &str = "房间很干净。早餐不错！\n服务太差了\n\nclean room. it was clean!\n干净 un-able\n\n\n房\n";

fn corpus_seeds(_: &Context) -> anyhow::Result<Vec<Seed>> {
    let vocabulary = std::fs::read(workspace_file("crates/kiln-tokenize/tests/tiny/vocab.txt"))?;
    let seed =
        |name, file: &str, text: &str| Seed::new(name).with(file, text).beside("vocab.txt", vocabulary.clone()).piped();
    Ok(vec![seed("text", "corpus.txt", CORPUS_TEXT), seed("rows", "corpus.tsv", TSV)])
}

/// Reads a corpus, builds a token store with its rows, and trains a vocabulary.
fn read_corpus(input: &Input<'_>) -> anyhow::Result<Answer> {
    const MAX_TOKENS: usize = 6;
    let file = if input.seed == "text" { "corpus.txt" } else { "corpus.tsv" };
    let columns = Columns { text: 0.into(), text_pair: None, label: None, flags: vec![] };
    let source = Source::new(input.folder.join(file), columns);
    let passages = || corpus(&source);
    let tokenizer = Tokenizer::from_folder(input.folder)?;
    let config = TokenStoreConfig { folder: input.context.scratch.clone(), max_tokens: MAX_TOKENS };
    let store = config.build(passages()?, &tokenizer)?;
    let mut problem = None;
    let mut shapes = Vec::new();
    for row in 0..store.rows() {
        let row = store.row(row)?;
        if row.tokens.len() > MAX_TOKENS || row.starts.iter().any(|start| *start >= row.tokens.len()) {
            problem = Some(format!("a row of {} tokens with sentences at {:?}", row.tokens.len(), row.starts));
        }
        shapes.push(fingerprint(&row));
    }
    let texts = passages()?.filter_map(|passage| match passage {
        Ok(Passage::Sentence(text)) => Some(text),
        _ => None,
    });
    // Too little text for a vocabulary is not an error of the file.
    let vocabulary = VocabularyConfig { size: 40, min_count: 1, lower_case: true }.train(texts);
    let size = vocabulary.map_or(0, |tokenizer| tokenizer.vocab_size());
    Ok(Answer { fingerprint: fingerprint(&(shapes, size)), rows: store.rows(), problem })
}

fn fixture(path: &str) -> anyhow::Result<Vec<u8>> {
    Ok(std::fs::read(workspace_file("crates/kiln-dataset/tests/fixtures").join(path))?)
}

fn parquet_seeds(_: &Context) -> anyhow::Result<Vec<Seed>> {
    Ok(vec![
        Seed::new("reviews").with("data.parquet", fixture("reviews.parquet")?),
        Seed::new("types").with("data.parquet", fixture("types.parquet")?),
    ])
}

fn arrow_seeds(_: &Context) -> anyhow::Result<Vec<Seed>> {
    let mut folder = Seed::new("folder");
    for file in [
        "dataset_dict.json",
        "train/data-00000-of-00002.arrow",
        "train/data-00001-of-00002.arrow",
        "train/dataset_info.json",
        "train/state.json",
    ] {
        folder = folder.with(format!("data/{file}"), fixture(&format!("reviews/{file}"))?);
    }
    Ok(vec![
        Seed::new("stream").with("data.arrow", fixture("types.arrow")?),
        Seed::new("file").with("data.arrow", fixture("types-footer.arrow")?),
        folder,
    ])
}

/// Reads two columns of each seed as text, labels included, so that all types are covered.
fn read_columnar(input: &Input<'_>) -> anyhow::Result<Answer> {
    let (text, label) = match input.seed {
        "reviews" | "folder" => ("sentence", "stars"),
        _ => ("text", "d"),
    };
    let parquet = input.folder.join("data.parquet");
    let arrow = input.folder.join("data.arrow");
    let path = [parquet, arrow].into_iter().find(|path| is_there(path)).unwrap_or_else(|| input.folder.join("data"));
    let columns = Columns { text: text.into(), text_pair: None, label: Some(label.into()), flags: vec![] };
    let split = (input.seed == "folder").then(|| "train".to_owned());
    rows::<Example<Vec<LabelId>>>(Source { split, ..Source::new(path, columns) })
}

/// Whether a path exists. A dangling link exists, too.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Checks that a single change neither loses nor adds rows. A stream may end after any of its messages.
fn judge_rows(judged: &Judged<'_>) -> Option<String> {
    let change = judged.mutant.only()?;
    let lost = judged.answer.rows != judged.seed.rows;
    let lists_files = judged.mutant.path.ends_with(".json");
    let at_message = judged.original.get(change.bytes.len()..).is_some_and(|rest| rest.starts_with(&[0xff; 4]));
    let doubled = change.bytes.len() == 2 * judged.original.len();
    let explained = lists_files || doubled || (change.truncated && at_message);
    (lost && !explained).then(|| format!("{} rows, and the file has {}", judged.answer.rows, judged.seed.rows))
}
