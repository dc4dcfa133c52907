//! Replaces a report atomically: `cargo run -p kiln-files --example replace`
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::io::Write;

use kiln_files::FileWriter;

fn main() -> std::io::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("report.txt");
    kiln_files::write(&path, b"accuracy 0.93\n")?;

    // A writer that is dropped before `finish` leaves the old file unchanged.
    let mut writer = FileWriter::create(&path)?;
    writer.write_all(b"accur")?;
    drop(writer);
    print!("after an interruption: {}", kiln_files::read_to_string(&path)?);

    let mut writer = FileWriter::create(&path)?;
    for line in ["accuracy 0.95\n", "macro F1 0.94\n"] {
        writer.write_all(line.as_bytes())?;
    }
    writer.finish()?;
    print!("after the end:\n{}", kiln_files::read_to_string(&path)?);

    // A device is written to directly and never replaced. A folder is refused.
    kiln_files::write("/dev/null".as_ref(), b"gone")?;
    let refused = kiln_files::write(folder.path(), b"").expect_err("it is a folder");
    println!("{}: {refused}", folder.path().display());
    Ok(())
}
