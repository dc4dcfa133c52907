//! Prints the masked rows of a small corpus in two epochs: `cargo run --release -p kiln-pretrain --example masks`
#![expect(clippy::print_stdout, reason = "an example prints")]

use kiln_dataset::{Passage, sentences};
use kiln_pretrain::{Drawing, MaskingConfig, PretrainingSet, TokenStoreConfig};
use kiln_tokenize::VocabularyConfig;
use kiln_train::Dataset;

const DOCUMENTS: [&str; 2] = ["房间很干净。早餐也不错！下次还来。", "书的封面破了。内容还可以。"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tokenizer = VocabularyConfig { size: 100, min_count: 1, lower_case: true }.train(DOCUMENTS.iter())?;
    let passages = DOCUMENTS.iter().flat_map(|document| {
        let sentences = sentences(document).into_iter().map(|text| Ok(Passage::Sentence(text.to_owned())));
        sentences.chain([Ok(Passage::End)])
    });
    let store = TokenStoreConfig { folder: std::env::temp_dir(), max_tokens: 61 }.build(passages, &tokenizer)?;
    let masking = MaskingConfig::default().init(&tokenizer)?;
    let drawing = Drawing { tokenizer: tokenizer.clone(), masking, next_sentence: true, seed: 1 };
    let set = PretrainingSet::whole(store, drawing)?;
    for number in 0..2 * set.rows() {
        let drawn = set.draw(number)?;
        let tokens: Vec<String> =
            drawn.encoding.input_ids.iter().map(|&id| tokenizer.token(id).unwrap_or_default()).collect();
        println!(
            "epoch {}, {}: {}",
            number / set.rows(),
            if drawn.is_random { "random" } else { "follows" },
            tokens.join(" ")
        );
    }
    Ok(())
}
