//! Prints the first reviews of each split: `cargo run --release -p kiln-sample --example reviews`
#![expect(clippy::print_stdout, reason = "an example prints")]

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (name, bytes) in kiln_sample::FILES.iter().filter(|(name, _)| name.ends_with(".tsv")) {
        println!("{name}");
        for line in std::str::from_utf8(bytes)?.lines().skip(1).take(3) {
            println!("  {}", line.replace('\t', " | "));
        }
    }
    Ok(())
}
