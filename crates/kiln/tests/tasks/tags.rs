//! Entities with and without a conditional random field, word segmentation, and plain tags: from files to predictions,
//! through the binary.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::{Case, Corpus, Proved, Random, succeed, vocabulary, write_lines};
use serde_json::Value;

/// Units with their tags.
type Tagged = Vec<(String, String)>;

const SPLITS: [&str; 3] = ["train", "validation", "test"];

fn write_task(folder: &Path, words: &[&str], files: [Vec<String>; 3], more: &str) {
    vocabulary(&folder.join("vocabulary"), words.iter().copied());
    for (split, lines) in SPLITS.iter().zip(files) {
        write_lines(&folder.join(format!("{split}.conll")), lines);
    }
    let files = SPLITS.map(|split| format!("{split} = \"{split}.conll\"\n")).concat();
    let recipe = format!(
        "task = \"token-classification\"\nmodel.source = \"dir:vocabulary\"\nmodel.size = \"tiny\"\n{more}\n\
         [data]\n{files}[train]\nepochs = 5\nbatch_size = 16\nlearning_rate = 3e-3\nmax_length = 32\n"
    );
    fs::write(folder.join("recipe.toml"), recipe).expect("a small file");
}

/// One unit per line, and an empty line after each text.
fn lines(texts: &[Tagged]) -> Vec<String> {
    let line = |(unit, tag): &(String, String)| format!("{unit}\t{tag}");
    texts.iter().flat_map(|text| text.iter().map(line).chain([String::new()])).collect()
}

fn case<'a>(folder: &'a Path, metric: &'a str) -> Case<'a> {
    Case { folder, command: "train", split: "test", data: "test.conll", metric, at_least: 0.95 }
}

type Span = (usize, String, u64, u64);

/// The passages of all answers: row, label, start and end.
fn spans(answers: &[Value]) -> BTreeSet<Span> {
    let span = |row: usize, entity: &Value| {
        let number = |key: &str| entity[key].as_u64().expect("an offset");
        (row, entity["label"].as_str().unwrap_or_default().to_owned(), number("start"), number("end"))
    };
    let each = |(row, answer): (usize, &Value)| {
        let entities = answer["entities"].as_array().expect("a list").clone();
        entities.into_iter().map(|entity| span(row, &entity)).collect::<Vec<_>>()
    };
    answers.iter().enumerate().flat_map(each).collect()
}

/// Checks that the F1 of the predicted passages, counted here, is the F1 in the report.
fn agree(proved: &Proved, predicted: &BTreeSet<Span>, expected: &BTreeSet<Span>) {
    let f1 = 2.0 * predicted.intersection(expected).count() as f64 / (predicted.len() + expected.len()) as f64;
    assert!((f1 - proved.score).abs() < 1e-9, "{f1} by the answers, {} by the report", proved.score);
}

const FILLERS: [&str; 10] = ["the", "a", "we", "they", "saw", "met", "and", "then", "today", "again"];
const NAMES: [&str; 10] = ["lee", "paris", "grant", "york", "jordan", "dale", "austin", "hill", "chelsea", "troy"];

/// Names of persons follow a title, and names of places follow a preposition. Both use the same names, which are one or two
/// words long. A name after neither of them is not an entity.
fn sentence_with_names(random: &mut Random) -> Tagged {
    let mut text = Tagged::new();
    let mut push = |word: &str, tag: &str| text.push((word.to_owned(), tag.to_owned()));
    for _ in 0..3 {
        for _ in 0..random.below(3) {
            push(random.pick(&FILLERS), "O");
        }
        let kind = random.below(3);
        let (before, label) = [("mr", "PER"), ("near", "LOC"), ("the", "")][kind];
        push(before, "O");
        for at in 0..1 + random.below(2) {
            let tag = match (label, at) {
                ("", _) => "O".to_owned(),
                (label, 0) => format!("B-{label}"),
                (label, _) => format!("I-{label}"),
            };
            push(random.pick(&NAMES), &tag);
        }
        push(random.pick(&FILLERS), "O");
    }
    text
}

fn joined(text: &Tagged) -> String {
    text.iter().map(|(unit, _)| unit.as_str()).collect::<Vec<_>>().join(" ")
}

/// The entities of texts whose units are joined by spaces, all ASCII.
fn entities(texts: &[Tagged]) -> BTreeSet<Span> {
    let mut entities = BTreeSet::new();
    for (row, text) in texts.iter().enumerate() {
        let mut open: Option<Span> = None;
        let mut at = 0;
        for (unit, tag) in text {
            let end = at + unit.len() as u64;
            match tag.split_once('-') {
                Some(("I", _)) => open.as_mut().expect("it began").3 = end,
                Some((_, label)) => entities.extend(open.replace((row, label.to_owned(), at, end))),
                None => entities.extend(open.take()),
            }
            at = end + 1;
        }
        entities.extend(open);
    }
    entities
}

fn prove_entities(more: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let texts = Corpus { train: 600, ..Corpus::default() }.draw(sentence_with_names);
    let words = [&FILLERS[..], &NAMES, &["mr", "near"]].concat();
    write_task(folder.path(), &words, texts.each_ref().map(|texts| lines(texts)), more);
    let case = case(folder.path(), "entity_f1");
    let proved = case.prove();
    case.teach();
    let [_, _, test] = texts;
    let asked: Vec<_> = test.iter().map(|text| (joined(text), None)).collect();
    let passages = |answer: &Value| spans(std::slice::from_ref(answer));
    let answers = proved.answers(&asked, |a, b| passages(a) == passages(b));
    agree(&proved, &spans(&answers), &entities(&test));
}

#[test]
fn entities_by_each_token() {
    prove_entities("");
}

#[test]
fn entities_by_a_conditional_random_field() {
    prove_entities("model.crf = true");
}

const WORDS: [&str; 14] =
    ["天气", "今天", "天", "很好", "好", "好看", "看书", "图书馆", "图画", "馆长", "我", "我们", "在", "他们"];

/// Words of one to three characters. Some of them overlap, so that a greedy longest match can be wrong.
#[test]
fn words_by_segmentation() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let texts = Corpus { train: 600, ..Corpus::default() }.draw(|random| {
        let mut words: Vec<String> = (0..4 + random.below(3)).map(|_| random.pick(&WORDS).to_owned()).collect();
        // Two words that together spell another word would be ambiguous.
        words.dedup_by(|next, word| WORDS.contains(&format!("{word}{next}").as_str()));
        words
    });
    let characters: Vec<String> = WORDS.concat().chars().map(String::from).collect();
    let characters: Vec<&str> = characters.iter().map(String::as_str).collect();
    let files = texts.each_ref().map(|texts| texts.iter().map(|words| words.join("  ")).collect());
    write_task(folder.path(), &characters, files, "");
    let proved = case(folder.path(), "entity_f1").prove();
    let [_, _, test] = texts;
    let asked: Vec<_> = test.iter().map(|words| (words.concat(), None)).collect();
    let places = |answers: &[Value]| -> BTreeSet<Span> {
        spans(answers).into_iter().map(|(row, _, start, end)| (row, String::new(), start, end)).collect()
    };
    let answers = proved.answers(&asked, |a, b| places(std::slice::from_ref(a)) == places(std::slice::from_ref(b)));
    let mut expected = BTreeSet::new();
    for (row, words) in test.iter().enumerate() {
        let mut at = 0;
        for word in words {
            let end = at + word.chars().count() as u64;
            expected.insert((row, String::new(), at, end));
            at = end;
        }
    }
    agree(&proved, &places(&answers), &expected);
}

/// Words that are a noun after an article and a verb after a pronoun, and words that always have the same tag. A reader
/// that merged neighbours with the same tag, or only knew the words, would be wrong about every third word.
fn sentence_with_parts_of_speech(random: &mut Random) -> Tagged {
    let mut text = Tagged::new();
    let mut push = |word: &str, tag: &str| text.push((word.to_owned(), tag.to_owned()));
    for _ in 0..2 + random.below(3) {
        let (before, tag) = [(["a", "the"], ["DET", "NOUN"]), (["we", "they"], ["PRON", "VERB"])][random.below(2)];
        let (before, [before_tag, tag]) = (random.pick(&before), tag);
        push(before, before_tag);
        push(random.pick(&["run", "walk", "play", "race", "dance", "work"]), tag);
        for _ in 0..random.below(3) {
            push(random.pick(&["then", "again", "today"]), "ADV");
        }
    }
    text
}

#[test]
fn parts_of_speech_by_plain_tags() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let texts = Corpus { train: 600, ..Corpus::default() }.draw(sentence_with_parts_of_speech);
    let words = texts.concat().concat();
    let words: Vec<&str> = words.iter().map(|(word, _)| word.as_str()).collect();
    write_task(folder.path(), &words, texts.each_ref().map(|texts| lines(texts)), "");
    let proved = case(folder.path(), "accuracy").prove();
    let [_, _, test] = texts;
    let asked: Vec<_> = test.iter().map(|text| (joined(text), None)).collect();
    let tags = |answer: &Value| -> Vec<(String, String)> {
        let part = |tag: &Value, key: &str| tag[key].as_str().expect("a string").to_owned();
        let tags = answer["tags"].as_array().unwrap_or_else(|| panic!("no tags: {answer}"));
        tags.iter().map(|tag| (part(tag, "text"), part(tag, "tag"))).collect()
    };
    let answers = proved.answers(&asked, |a, b| tags(a) == tags(b));
    let (mut right, mut units) = (0, 0);
    for (answer, text) in answers.iter().zip(&test) {
        let tags = tags(answer);
        assert_eq!(tags.len(), text.len(), "a tag for each word of {text:?}");
        right += tags.iter().zip(text).filter(|(predicted, expected)| predicted == expected).count();
        units += text.len();
    }
    let accuracy = right as f64 / units as f64;
    assert!((accuracy - proved.score).abs() < 1e-9, "{accuracy} by the answers, {} by the report", proved.score);
}

/// Raw text is divided at each punctuation mark, and a labelled file has other units.
#[test]
fn the_units_of_a_file_are_tagged_as_in_evaluation() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let texts = Corpus { train: 200, ..Corpus::default() }.draw(|random| -> Tagged {
        let unit = |random: &mut Random| match random.below(3) {
            0 => ("covid-19".to_owned(), "B-A"),
            1 => ("u.s.".to_owned(), "B-B"),
            _ => ("the".to_owned(), "O"),
        };
        (0..8).map(|_| unit(random)).map(|(unit, tag)| (unit, tag.to_owned())).collect()
    });
    write_task(
        folder.path(),
        &["covid", "-", "19", "u", ".", "s", "the"],
        texts.each_ref().map(|texts| lines(texts)),
        "",
    );
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    succeed(&["train", "--recipe", &path("recipe.toml"), "--out", &path("run")]);
    let [_, _, test] = texts;
    let bare: String =
        test.iter().map(|text| text.iter().map(|(unit, _)| format!("{unit}\n")).collect::<String>() + "\n").collect();
    fs::write(path("bare.conll"), bare).expect("a small file");
    let listed = |text: &Tagged| {
        serde_json::json!({ "tokens": text.iter().map(|(unit, _)| unit).collect::<Vec<_>>() }).to_string()
    };
    write_lines(&folder.path().join("listed.jsonl"), test.iter().map(listed));
    for file in ["test.conll", "bare.conll", "listed.jsonl"] {
        let answers = succeed(&["predict", "--model", &path("run"), "--file", &path(file)]);
        let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(spans(&answers), entities(&test), "{file}");
    }
}
