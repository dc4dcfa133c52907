//! Known properties of real data: duplicates and leaks of ChnSentiCorp, and the padding of its batches.

use std::path::Path;

use kiln_dataset::{Columns, Format, Source, Unplaced, audit, mend_answers, read, read_splits};
use kiln_schema::{Example, LabelSet, Question, Splits, TaggedText};
use kiln_tokenize::{Shuffle, Tokenizer, lengths, padding_share, shuffled};

use crate::assets::assets;

fn chnsenticorp(assets: &Path) -> (Splits<Vec<Example>>, LabelSet) {
    let source = |name: &str| {
        let columns = Columns { text: 0.into(), text_pair: None, label: Some(1.into()), flags: vec![] };
        vec![Source::new(assets.join("data/chnsenticorp").join(name), columns)]
    };
    let sources = Splits { train: source("train.tsv"), validation: source("dev.tsv"), test: None };
    read_splits(&sources, None).expect("the files are well formed")
}

#[test]
fn the_audit_finds_what_is_known_of_chnsenticorp() {
    let Some(assets) = assets() else { return };
    let (splits, labels) = chnsenticorp(&assets);
    assert_eq!(labels.names(), ["negative", "positive"]);
    let audit = audit(&splits, labels.names(), None);
    let train = &audit.splits[0];
    assert_eq!((train.rows, train.distinct, train.conflicts.count), (9_600, 8_249, 24));
    assert_eq!(audit.leaks(), 338);
}

#[test]
fn padding_is_at_most_five_percent_at_batch_16() {
    let Some(assets) = assets() else { return };
    let (splits, _) = chnsenticorp(&assets);
    for model in ["multilingual-e5-small-zh", "bert-base-chinese-tokenizer"] {
        let tokenizer = Tokenizer::from_folder(&assets.join("models").join(model))
            .and_then(|tokenizer| tokenizer.with_max_length(128))
            .expect("a tokenizer");
        let encodings = tokenizer.encode_all(splits.train.iter().map(Example::texts)).expect("texts encode");
        let lengths = lengths(&encodings);
        for epoch in 0..3 {
            let share = padding_share(&lengths, &shuffled(&lengths, Shuffle { batch_size: 16, seed: 42, epoch }));
            assert!(share <= 0.05, "{model}: {share}");
        }
    }
}

#[test]
fn the_other_data_sets_are_as_large_as_they_are_said_to_be() {
    let Some(assets) = assets() else { return };
    let columns = Columns { text: 0.into(), text_pair: Some(1.into()), label: Some(2.into()), flags: vec![] };
    let source = |path: &str| Source::new(assets.join("data").join(path), columns.clone());
    for (name, rows) in [("train", 3_821), ("dev", 463), ("test", 477)] {
        let source = source(&format!("resume-ner/{name}.char.bmes"));
        let (texts, labels) = read::<TaggedText>(&[source], None).expect("tagged texts");
        assert_eq!((texts.len(), labels.names()[0].as_str()), (rows, "O"), "{name}");
        assert!(texts.iter().all(|text| text.words().all(|unit| !unit.is_empty())));
    }
    for (name, rows) in [("train", 34_334), ("dev", 4_316)] {
        let (pairs, labels) = read::<Example>(&[source(&format!("afqmc/{name}.txt"))], None).expect("pairs");
        assert_eq!((pairs.len(), labels.names()), (rows, ["0", "1"].map(str::to_owned).as_slice()), "{name}");
    }
    let squad = Source { format: Some(Format::Squad), ..source("cmrc2018/cmrc2018_dev.json") };
    let (mut questions, _) = read::<Question>(&[squad], None).expect("questions");
    let contexts: std::collections::HashSet<&str> =
        questions.iter().map(|question| question.context.as_str()).collect();
    assert_eq!((questions.len(), contexts.len()), (3_219, 848));
    let offsets = mend_answers(&mut questions, Unplaced::Drop);
    assert_eq!((offsets.answers, offsets.wrong.len(), offsets.mended(), questions.len()), (9_657, 200, 7, 3_219));
}
