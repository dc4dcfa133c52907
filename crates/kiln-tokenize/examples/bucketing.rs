//! Compares the padding with and without length bucketing: `cargo run --release -p kiln-tokenize --example bucketing`
#![expect(clippy::print_stdout, reason = "an example prints")]

use kiln_tokenize::{Shuffle, Tokenizer, by_length, lengths, pad, padding_share, shuffled};

fn main() -> Result<(), kiln_tokenize::Error> {
    // Any folder with a `tokenizer.json` or a `vocab.txt` works.
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tiny");
    let tokenizer = Tokenizer::from_folder(folder.as_ref())?.with_max_length(32)?;

    // Reviews of 4 to 28 tokens, most of them short.
    let texts: Vec<String> = (0..2_000).map(|row| "房间 clean!".repeat(1 + (row % 29) * (row % 31) / 140)).collect();
    let encodings = tokenizer.encode_all(texts.iter().map(|text| (text.as_str(), None)))?;
    let truncated = encodings.iter().filter(|encoding| encoding.is_truncated()).count();
    println!("{} encodings, {truncated} truncated to {} tokens", encodings.len(), tokenizer.max_length());

    let lengths = lengths(&encodings);
    let in_order: Vec<usize> = (0..lengths.len()).collect();
    let as_they_come: Vec<Vec<usize>> = in_order.chunks(16).map(<[usize]>::to_vec).collect();
    let training = shuffled(&lengths, Shuffle { batch_size: 16, seed: 42, epoch: 0 });
    let evaluation = by_length(&lengths, 16);
    for (name, batches) in [("as they come", &as_they_come), ("training", &training), ("evaluation", &evaluation)] {
        println!("{name:<12} {:>5.1} % of the tokens are padding", 100.0 * padding_share(&lengths, batches));
    }

    let batch = pad(&encodings, &training[0], tokenizer.pad_token_id());
    println!("the first batch of training is [{}, {}]: rows {:?}", batch.rows.len(), batch.seq, batch.rows);
    println!("its first row: {:?}", &batch.input_ids[..batch.seq]);
    Ok(())
}
