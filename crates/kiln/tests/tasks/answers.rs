//! Question answering and masked words: from files to predictions, through the binary.

use std::fs;

use crate::support::{Case, Corpus, Random, close, succeed_json, text, vocabulary, write_lines};
use serde_json::{Value, json};

const FILLERS: [&str; 8] = ["there", "was", "also", "one", "with", "some", "and", "the"];
/// The kind that a question asks for, the words that may begin an answer, and the words that end it.
const KINDS: [(&str, [&str; 2], [&str; 5]); 3] = [
    ("colour", ["dark", "pale"], ["red", "blue", "green", "white", "brown"]),
    ("animal", ["wild", "tame"], ["cat", "horse", "sheep", "goat", "duck"]),
    ("tool", ["sharp", "blunt"], ["saw", "drill", "axe", "knife", "spade"]),
];

#[derive(Clone, PartialEq, Eq, Hash)]
struct Asked {
    question: String,
    context: String,
    answer: String,
    start: usize,
}

/// A context with one item of each kind, with or without a modifier that is part of the answer.
fn asked(random: &mut Random) -> Asked {
    let kind = random.below(KINDS.len());
    let mut order = [0, 1, 2];
    random.shuffle(&mut order);
    let mut context = String::new();
    let (mut answer, mut start) = (String::new(), 0);
    for named in order {
        for _ in 0..1 + random.below(2) {
            context.push_str(random.pick(&FILLERS));
            context.push(' ');
        }
        let word = random.pick(&KINDS[named].2);
        let phrase = match random.below(2) {
            0 => word.to_owned(),
            _ => format!("{} {word}", random.pick(&KINDS[named].1)),
        };
        if named == kind {
            (answer, start) = (phrase.clone(), context.len());
        }
        context.push_str(&phrase);
        context.push(' ');
    }
    context.push_str("today");
    Asked { question: format!("which {}", KINDS[kind].0), context, answer, start }
}

fn squad(rows: &[Asked]) -> String {
    let paragraph = |(id, asked): (usize, &Asked)| {
        let answers = json!([{ "text": asked.answer, "answer_start": asked.start }]);
        let question = json!({ "id": id.to_string(), "question": asked.question, "answers": answers });
        json!({ "context": asked.context, "qas": [question] })
    };
    let paragraphs: Vec<Value> = rows.iter().enumerate().map(paragraph).collect();
    json!({ "version": "1.1", "data": [{ "title": "made up", "paragraphs": paragraphs }] }).to_string()
}

#[test]
fn questions_with_a_passage_as_the_answer() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let rows = Corpus { train: 1200, ..Corpus::default() }.draw(asked);
    let kinds = KINDS.into_iter().flat_map(|(kind, first, last)| first.into_iter().chain(last).chain([kind]));
    let words = FILLERS.into_iter().chain(kinds).chain(["which", "today"]);
    vocabulary(&folder.path().join("vocabulary"), words);
    for (split, rows) in ["train", "validation", "test"].iter().zip(&rows) {
        fs::write(folder.path().join(format!("{split}.json")), squad(rows)).expect("a small file");
    }
    let recipe = r#"task = "question-answering"
[model]
source = "dir:vocabulary"
size = "tiny"
[data]
train = "train.json"
validation = "validation.json"
test = "test.json"
format = "squad"
[train]
epochs = 6
batch_size = 16
learning_rate = 1e-3
max_length = 32
"#;
    fs::write(folder.path().join("recipe.toml"), recipe).expect("a small file");
    let case = Case {
        folder: folder.path(),
        command: "train",
        split: "test",
        data: "test.json",
        metric: "exact_match",
        // Guessing one of the three items gives a third.
        at_least: 0.95,
    };
    let proved = case.prove();
    case.teach();
    // The ending of a file of questions may also be that of a table. No recipe is beside the model to say what it is.
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("alone")).expect("it is writable");
    for entry in fs::read_dir(&proved.model).expect("a folder") {
        let entry = entry.expect("a file");
        fs::copy(entry.path(), path("alone").join(entry.file_name())).expect("it is writable");
    }
    fs::copy(path("test.json"), path("test.txt")).expect("it is writable");
    let report = |file: &str| {
        succeed_json(&["eval", "--model", text(&path("alone")), "--data", text(&path(file))])["splits"].clone()
    };
    assert_eq!(report("test.txt"), report("test.json"));
    let [_, _, test] = rows;
    let pairs: Vec<_> = test.iter().map(|row| (row.question.clone(), Some(row.context.clone()))).collect();
    let passage = |answer: &Value| (answer["answer"].clone(), answer["start"].clone());
    let answers = proved.answers(&pairs, |a, b| passage(a) == passage(b));
    let right = answers.iter().zip(&test).filter(|(answer, row)| answer["answer"] == row.answer.as_str()).count();
    assert!((right as f64 / 200.0 - proved.score).abs() < 1e-9, "{right} of 200 by the answers, {}", proved.score);
    for (answer, row) in answers.iter().zip(&test).filter(|(answer, row)| answer["answer"] == row.answer.as_str()) {
        assert_eq!((&answer["start"], &answer["end"]), (&json!(row.start), &json!(row.start + row.answer.len())));
    }
}

const WORDS: [&str; 64] = [
    "ant", "arm", "art", "bag", "ball", "band", "bark", "barn", "bath", "bead", "bean", "bear", "bed", "bee", "bell",
    "belt", "bird", "boat", "bone", "book", "boot", "bowl", "box", "boy", "bread", "brick", "bus", "cake", "camp",
    "cap", "car", "card", "cart", "cave", "chair", "chest", "chin", "city", "clay", "cloth", "coal", "coast", "coat",
    "cook", "cord", "cork", "corn", "cow", "crop", "crow", "crown", "cup", "deer", "desk", "dish", "dog", "doll",
    "door", "drum", "ear", "egg", "farm", "feet", "field",
];

/// Four words that always occur together, then four others, so that each word predicts its neighbours.
fn phrases(first: usize, second: usize) -> String {
    [&WORDS[first * 4..][..4], &WORDS[32 + second * 4..][..4]].concat().join(" ")
}

/// A combination of phrases that is in the training data, or one that is not.
fn combination(random: &mut Random, is_seen: bool) -> String {
    loop {
        let (first, second) = (random.below(8), random.below(8));
        if ((first + second) % 4 != 0) == is_seen {
            return phrases(first, second);
        }
    }
}

#[test]
fn masked_words() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    vocabulary(&folder.path().join("vocabulary"), WORDS);
    let mut random = Random::new(7);
    for (name, documents, is_seen) in [("train", 600, true), ("validation", 100, false)] {
        let documents = (0..documents).flat_map(|_| [combination(&mut random, is_seen), String::new()]);
        write_lines(&folder.path().join(format!("{name}.txt")), documents.collect::<Vec<_>>());
    }
    let recipe = r#"task = "masked-lm"
next_sentence = false
[model]
source = "dir:vocabulary"
size = "tiny"
[data]
train = "train.txt"
validation = "validation.txt"
[train]
epochs = 6
batch_size = 16
learning_rate = 3e-3
max_length = 10
"#;
    fs::write(folder.path().join("recipe.toml"), recipe).expect("a small file");
    let case = Case {
        folder: folder.path(),
        command: "pretrain",
        split: "validation",
        data: "validation.txt",
        metric: "masked_accuracy",
        // Chance is a sixty-fourth.
        at_least: 0.95,
    };
    let proved = case.prove();
    let mut rows = Vec::new();
    for _ in 0..200 {
        let whole = combination(&mut random, false);
        let mut words: Vec<&str> = whole.split(' ').collect();
        words[random.below(8)] = "[MASK]";
        rows.push((words.join(" "), whole));
    }
    let texts: Vec<_> = rows.iter().map(|(masked, _)| (masked.clone(), None)).collect();
    let answers = proved.answers(&texts, |a, b| a["filled"] == b["filled"]);
    let right = answers.iter().zip(&rows).filter(|(answer, (_, whole))| answer["filled"] == whole.as_str()).count();
    assert!(right >= 190, "{right} of 200 masks are filled with the right word");
    let (masked, whole) = &rows[0];
    let filled = succeed_json(&["fill-mask", "--model", text(&proved.model), "--text", masked]);
    close(&filled, &answers[0], 1e-5, "fill-mask and predict");
    assert_eq!(filled["filled"], whole.as_str());
}
