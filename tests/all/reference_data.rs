//! What is known of real data: duplicates and leaks of ChnSentiCorp, and the padding of its batches.

use std::path::Path;

use kiln_dataset::{Columns, Source, audit, read_splits};
use kiln_schema::{Example, LabelSet, Splits};
use kiln_tokenize::{Shuffle, Tokenizer, lengths, padding_share, shuffled};

use crate::assets::assets;

fn chnsenticorp(assets: &Path) -> (Splits<Vec<Example>>, LabelSet) {
    let source = |name: &str| {
        let columns = Columns { text: 0.into(), text_pair: None, label: Some(1.into()) };
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
