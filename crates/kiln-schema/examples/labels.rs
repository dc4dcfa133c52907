//! Converts label names to ids and back: `cargo run --release -p kiln-schema --example labels`
#![expect(clippy::print_stdout, reason = "an example prints")]

use kiln_schema::{LabelSet, Split, Splits};

fn main() -> Result<(), kiln_schema::LabelSetError> {
    let labels = LabelSet::new(["negative", "positive"])?;
    for (id, name) in labels.names().iter().enumerate() {
        println!("{id} {name}");
    }
    let sizes = Splits { train: 9_600, validation: 1_200, test: Some(1_200) };
    for (split, size) in sizes.iter() {
        println!("{split:<10} {size:>6} fitted to: {}", split == Split::Train);
    }
    Ok(())
}
