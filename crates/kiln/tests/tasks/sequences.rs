//! Texts and pairs with one label, several or a number, and vectors of texts: from files to predictions, through the
//! binary.

use std::fs;
use std::path::Path;

use crate::support::{Case, Corpus, Proved, Random, close, succeed, succeed_json, text, vocabulary, write_lines};
use serde_json::Value;

const FILLERS: [&str; 12] = ["the", "a", "it", "was", "there", "then", "we", "saw", "some", "more", "again", "today"];

/// Four topics and their words.
pub const TOPICS: [(&str, [&str; 5]); 4] = [
    ("food", ["bread", "soup", "apple", "cheese", "rice"]),
    ("money", ["coin", "bank", "price", "wage", "tax"]),
    ("sport", ["ball", "goal", "race", "team", "medal"]),
    ("weather", ["rain", "cloud", "storm", "snow", "wind"]),
];

fn words() -> impl Iterator<Item = &'static str> {
    FILLERS.into_iter().chain(TOPICS.into_iter().flat_map(|(_, words)| words))
}

/// The words and fillers, shuffled.
fn sentence(random: &mut Random, mut words: Vec<&str>, length: usize) -> String {
    while words.len() < length {
        words.push(random.pick(&FILLERS));
    }
    random.shuffle(&mut words);
    words.join(" ")
}

/// Two words of the topic and one of another, so that no single word decides.
fn topical(random: &mut Random) -> (String, usize) {
    let topic = random.below(TOPICS.len());
    let other = (topic + 1 + random.below(TOPICS.len() - 1)) % TOPICS.len();
    let words = [topic, topic, other].map(|topic| random.pick(&TOPICS[topic].1));
    (sentence(random, words.to_vec(), 8), topic)
}

const SPLITS: [&str; 3] = ["train", "validation", "test"];

/// Writes a recipe and its three files into a folder.
fn write_task(folder: &Path, [ending, header]: [&str; 2], rows: [Vec<String>; 3], recipe: &str) {
    vocabulary(&folder.join("vocabulary"), words());
    for (split, rows) in SPLITS.iter().zip(rows) {
        let header = (!header.is_empty()).then(|| header.to_owned());
        write_lines(&folder.join(format!("{split}.{ending}")), header.into_iter().chain(rows));
    }
    let files = SPLITS.map(|split| format!("{split} = \"{split}.{ending}\"\n")).concat();
    let recipe = recipe.replace("[data]\n", &format!("[data]\n{files}"));
    fs::write(folder.join("recipe.toml"), format!("task = \"sequence-classification\"\n{recipe}")).expect("small");
}

fn same_label(a: &Value, b: &Value) -> bool {
    a["label"] == b["label"] && a["labels"] == b["labels"]
}

/// Checks that the share of answers that satisfy `is_right` is the score in the report.
fn agree<T>(proved: &Proved, answers: &[Value], rows: &[T], is_right: impl Fn(&Value, &T) -> bool) {
    let right = answers.iter().zip(rows).filter(|(answer, row)| is_right(answer, row)).count();
    let share = right as f64 / rows.len() as f64;
    assert!((share - proved.score).abs() < 1e-9, "{share} by the answers, {} by the report", proved.score);
}

const TEXTS: &str = r#"
[model]
source = "dir:vocabulary"
size = "tiny"
pooling = "pooler"
[data]
[train]
epochs = 4
batch_size = 16
learning_rate = 1e-3
max_length = 24
"#;

pub fn write_texts(folder: &Path) -> Vec<(String, usize)> {
    let rows = Corpus::default().draw(topical);
    let line = |(text, topic): &(String, usize)| format!("{text}\t{}", TOPICS[*topic].0);
    write_task(folder, ["tsv", ""], rows.each_ref().map(|rows| rows.iter().map(line).collect()), TEXTS);
    let [_, _, test] = rows;
    test
}

#[test]
fn texts_with_one_label() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let test = write_texts(folder.path());
    let case = Case {
        folder: folder.path(),
        command: "train",
        split: "test",
        data: "test.tsv",
        metric: "accuracy",
        at_least: 0.95,
    };
    let proved = case.prove();
    let texts: Vec<_> = test.iter().map(|(text, _)| (text.clone(), None)).collect();
    let answers = proved.answers(&texts, same_label);
    agree(&proved, &answers, &test, |answer, (_, topic)| answer["label"] == TOPICS[*topic].0);
}

/// The label is whether two texts are on the same topic. One text alone has no information about it.
#[test]
fn pairs_with_one_label() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let rows = Corpus { train: 1200, ..Corpus::default() }.draw(|random| {
        let first = random.below(2);
        let second = random.below(2);
        let words = [first, second].map(|topic| vec![random.pick(&TOPICS[topic].1)]);
        let [first_text, second_text] = words.map(|words| sentence(random, words, 2));
        (first_text, second_text, first == second)
    });
    let name = |same: bool| if same { "same" } else { "different" };
    let line = |(first, second, same): &(String, String, bool)| format!("\"{first}\",\"{second}\",{}", name(*same));
    let recipe = TEXTS
        .replace("[data]\n", "[data]\ntext = \"first\"\ntext_pair = \"second\"\nlabel = \"verdict\"\n")
        .replace("epochs = 4", "epochs = 10");
    let lines = rows.each_ref().map(|rows| rows.iter().map(line).collect());
    write_task(folder.path(), ["csv", "first,second,verdict"], lines, &recipe);
    let case = Case {
        folder: folder.path(),
        command: "train",
        split: "test",
        data: "test.csv",
        metric: "accuracy",
        at_least: 0.95,
    };
    let proved = case.prove();
    case.teach();
    let [_, _, test] = rows;
    let pairs: Vec<_> = test.iter().map(|(first, second, _)| (first.clone(), Some(second.clone()))).collect();
    let answers = proved.answers(&pairs, same_label);
    agree(&proved, &answers, &test, |answer, (_, _, same)| answer["label"] == name(*same));
}

/// Every topic that occurs is a label, so that a text has none, one or more.
#[test]
fn texts_with_several_labels() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let rows = Corpus::default().draw(|random| {
        let topics: Vec<usize> = (0..TOPICS.len()).filter(|_| random.below(5) < 2).collect();
        let words = topics.iter().map(|&topic| random.pick(&TOPICS[topic].1)).collect();
        (sentence(random, words, 7), topics)
    });
    let names = |topics: &[usize]| topics.iter().map(|&topic| TOPICS[topic].0).collect::<Vec<_>>();
    let line = |(text, topics): &(String, Vec<usize>)| {
        serde_json::json!({ "text": text, "label": names(topics).join("|") }).to_string()
    };
    let recipe = TEXTS
        .replace("pooling = \"pooler\"", "pooling = \"mean\"\nproblem_type = \"multi_label_classification\"")
        .replace("[data]\n", "[data]\nlabel_separator = \"|\"\n");
    write_task(folder.path(), ["jsonl", ""], rows.each_ref().map(|rows| rows.iter().map(line).collect()), &recipe);
    let case = Case {
        folder: folder.path(),
        command: "train",
        split: "test",
        data: "test.jsonl",
        // Accuracy is of whole rows: one wrong label of four makes the row wrong.
        metric: "accuracy",
        at_least: 0.95,
    };
    let proved = case.prove();
    case.teach();
    let [_, _, test] = rows;
    let texts: Vec<_> = test.iter().map(|(text, _)| (text.clone(), None)).collect();
    let answers = proved.answers(&texts, same_label);
    agree(&proved, &answers, &test, |answer, (_, topics)| answer["labels"] == serde_json::json!(names(topics)));
}

/// A text's number is the sum over its words: words of the first topic count 1, of the second −1, all others 0.
#[test]
fn texts_with_a_number() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let rows = Corpus::default().draw(|random| {
        let counts = [random.below(4), random.below(4)];
        let words = (0..2).flat_map(|topic| vec![topic; counts[topic]]).collect::<Vec<_>>();
        let words = words.into_iter().map(|topic| random.pick(&TOPICS[topic].1)).collect();
        (sentence(random, words, 8), counts[0] as i32 - counts[1] as i32)
    });
    let line = |(text, number): &(String, i32)| format!("{text}\t{:.2}", f64::from(*number) / 2.0);
    let recipe = TEXTS
        .replace("pooling = \"pooler\"", "pooling = \"cls\"\nproblem_type = \"regression\"")
        .replace("epochs = 4", "epochs = 6");
    write_task(folder.path(), ["tsv", ""], rows.each_ref().map(|rows| rows.iter().map(line).collect()), &recipe);
    let case = Case {
        folder: folder.path(),
        command: "train",
        split: "test",
        data: "test.tsv",
        metric: "pearson",
        at_least: 0.95,
    };
    let proved = case.prove();
    case.teach();
    let [_, _, test] = rows;
    let texts: Vec<_> = test.iter().map(|(text, _)| (text.clone(), None)).collect();
    let number = |answer: &Value| answer["score"].as_f64().expect("a number");
    let answers = proved.answers(&texts, |a, b| (number(a) - number(b)).abs() < 0.25);
    let near = answers.iter().zip(&test).filter(|(answer, row)| (number(answer) - f64::from(row.1) / 2.0).abs() < 0.5);
    assert!(near.count() >= 180, "nine tenths of the numbers are nearer to the target than to the next but one");
}

/// A trained encoder gives texts on the same topic similar vectors.
#[test]
fn vectors_of_texts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let test = write_texts(folder.path());
    let (recipe, run) = (folder.path().join("recipe.toml"), folder.path().join("run"));
    succeed(&["train", "--recipe", text(&recipe), "--out", text(&run), "--set", "model.pooling=mean"]);
    let model = run.join("model");
    let file = folder.path().join("texts.tsv");
    write_lines(&file, test.iter().map(|(text, _)| text));
    let embed = |precision: &str| {
        let out = folder.path().join(format!("{precision}.npy"));
        let arguments = ["embed", "--model", text(&model), "--file", text(&file), "--out", text(&out)];
        succeed(&[&arguments[..], &["--normalize", "--precision", precision]].concat());
        read_npy(&out)
    };
    let exact = embed("f32");
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    let nearest = |row: usize| {
        let others = (0..exact.len()).filter(|&other| other != row);
        others.max_by(|&a, &b| dot(&exact[row], &exact[a]).total_cmp(&dot(&exact[row], &exact[b]))).expect("others")
    };
    let right = (0..test.len()).filter(|&row| test[nearest(row)].1 == test[row].1).count();
    assert!(right >= 190, "the nearest of {right} of 200 texts is on the same topic; 50 would be chance");

    let (first, second) = (test[0].0.as_str(), test[1].0.as_str());
    let one = succeed_json(&["embed", "--model", text(&model), "--text", first, "--normalize"]);
    close(&one["embedding"], &serde_json::json!(exact[0]), 1e-5, "a text and a file");
    let cosine = succeed_json(&["embed", "--model", text(&model), "--text", first, "--text-pair", second]);
    close(&cosine["cosine"], &serde_json::json!(dot(&exact[0], &exact[1])), 1e-5, "the cosine");
    for precision in ["bf16", "int8"] {
        let rounded = embed(precision);
        assert!(rounded != exact, "{precision} is what was asked for");
        for (rounded, exact) in rounded.iter().zip(&exact) {
            let cosine = dot(rounded, exact);
            assert!(cosine >= 0.99, "{precision}: {cosine}");
        }
    }
}

/// Reads the rows of a two-dimensional little-endian f32 array. The format is a magic number, a version, the header's
/// length, the header, and the values.
fn read_npy(path: &Path) -> Vec<Vec<f32>> {
    let bytes = fs::read(path).expect("it was written");
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let header_end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..header_end]).expect("ASCII");
    assert!(header.contains("'<f4'") && header.contains("'fortran_order': False"), "{header}");
    let shape = header.split('(').nth(1).and_then(|shape| shape.split(')').next()).expect("a shape");
    let shape: Vec<usize> = shape.split(',').map(|size| size.trim().parse().expect("a size")).collect();
    let values: Vec<f32> = bytes[header_end..]
        .chunks_exact(4)
        .map(|value| f32::from_le_bytes(value.try_into().expect("four bytes")))
        .collect();
    assert_eq!(values.len(), shape.iter().product::<usize>());
    values.chunks(shape[1]).map(<[f32]>::to_vec).collect()
}
