//! Reads a file, splits it and audits the splits: `cargo run --release -p kiln-dataset --example audit`
#![expect(clippy::print_stdout, reason = "an example prints")]

use kiln_dataset::{Columns, Lengths, Source, SplitConfig, audit, read, split, write_splits};
use kiln_schema::Example;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("reviews.tsv");
    let rooms = ["房间很干净", "早餐不错", "服务周到", "位置方便", "价格实惠"];
    let faults = ["隔音太差", "空调坏了", "前台冷淡", "热水不热", "有股霉味"];
    let mut file = String::from("review\tlabel\n");
    for (i, (room, fault)) in rooms.iter().flat_map(|room| faults.iter().map(move |fault| (room, fault))).enumerate() {
        file += &format!("第{i}次入住，{room}\tpositive\n第{i}次入住，{fault}\tnegative\n");
    }
    // Problems as in real data: a duplicate, a near duplicate with a full stop, and a contradictory label.
    file += "第0次入住，房间很干净\tpositive\n第0次入住，房间很干净。\tpositive\n第1次入住，空调坏了\tpositive\n";
    std::fs::write(&path, file)?;

    let columns = Columns { text: "review".into(), text_pair: None, label: Some("label".into()), flags: vec![] };
    let source = Source { header: true, ..Source::new(path, columns) };
    let (examples, labels) = read::<Example>(&[source], None)?;
    let splits = split(examples, &SplitConfig { validation: 0.2, test: 0.0, ..SplitConfig::default() })?;

    // This example counts characters as tokens; a real program would use a tokenizer.
    let tokens = splits.clone().try_map(|_, examples| {
        Ok::<_, std::convert::Infallible>(examples.iter().map(|example| example.text.chars().count() + 2).collect())
    })?;
    let audit = audit(&splits, labels.names(), Some(Lengths { tokens, max_length: 13 }));
    println!("{audit}");
    println!("in short\n{}\n", audit.summary());

    let paths = write_splits(&splits, &labels, folder.path())?;
    let train = std::fs::read_to_string(paths.train)?;
    println!("train.jsonl begins with\n{}", train.lines().next().unwrap_or_default());
    Ok(())
}
