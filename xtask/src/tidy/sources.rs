//! Rules for sources that neither rustc nor clippy checks.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The largest number of lines of a file. A longer file has more than one concept.
const MOST_LINES: usize = 400;
/// The largest number of lines of an example, without blank lines.
const MOST_EXAMPLE_LINES: usize = 70;

/// Text that no source may contain, with the reason. It is split here, so that this file passes its own check.
const NEVER: [(&str, &str); 5] = [
    (concat!("to", "do!("), "finish it, or leave it out and say so"),
    (concat!("unimple", "mented!("), "finish it, or leave it out and say so"),
    (concat!("db", "g!("), "a trace of debugging"),
    (concat!("#[ig", "nore"), "a test either runs or does not exist"),
    (concat!("allow(dead", "_code"), "what nothing uses is deleted"),
];

/// Only programs print, read the environment and end the process. Libraries take arguments and return results.
const COMMAND_LINE: [&str; 6] = ["print!(", "println!(", "env::var", "env::args", "process::exit", "process::abort"];

/// The programs, and the one file in which the library `kiln` reads the environment.
const PROGRAMS: [&str; 3] = ["crates/kiln/src/bin/", "crates/kiln/src/environment.rs", "xtask/"];

pub fn problems(root: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for folder in ["crates", "tests", "xtask"] {
        for path in rust_files(&root.join(folder))? {
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let shown = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            problems.extend(file_problems(&shown, &text));
        }
    }
    Ok(problems)
}

/// The problems of a file. `path` is relative to the workspace.
fn file_problems(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let (lines, most, what) = if path.contains("/examples/") {
        let is_filled = |line: &&str| !line.trim().is_empty();
        (text.lines().filter(is_filled).count(), MOST_EXAMPLE_LINES, "an example")
    } else {
        (text.lines().count(), MOST_LINES, "a file")
    };
    if lines > most {
        problems.push(format!("{path}: {lines} lines; {what} has at most {most}"));
    }
    if path.starts_with("crates/") && path.ends_with("/src/lib.rs") && !text.contains("#![deny(missing_docs)]") {
        problems.push(format!("{path}: `#![deny(missing_docs)]` is missing"));
    }

    let mut is_test = path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs");
    let is_program = ["/examples/", "/benches/"].iter().any(|folder| path.contains(folder))
        || PROGRAMS.iter().any(|program| path.starts_with(program));
    for (number, line) in (1..).zip(text.lines()) {
        is_test |= line.starts_with("mod tests {");
        let code = line.trim_start();
        if code.starts_with("//") {
            continue;
        }
        let mut problem = |what: String| problems.push(format!("{path}:{number}: {what}"));
        for (word, why) in NEVER {
            if code.contains(word) {
                problem(format!("`{word}`: {why}"));
            }
        }
        if let Some(word) = COMMAND_LINE.iter().find(|word| code.contains(**word))
            && !is_test
            && !is_program
        {
            problem(format!("`{word}` belongs to the programs, in `crates/kiln/src/bin` and `xtask`"));
        }
        if code.starts_with("pub use kiln_") {
            problem("a name is exported by the crate that has it alone".to_owned());
        }
    }
    problems
}

pub fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBRARY: &str = "crates/kiln-x/src/x.rs";

    #[test]
    fn what_stands_nowhere_is_found_with_its_line() {
        for (word, why) in NEVER {
            let text = format!("fn x() {{\n    {word}\n    // {word}\n}}\n");
            assert_eq!(file_problems("xtask/src/x.rs", &text), [format!("xtask/src/x.rs:2: `{word}`: {why}")]);
        }
    }

    #[test]
    fn libraries_do_not_speak_but_their_tests_and_examples_do() {
        let text = "fn x() {\n    std::env::var(\"X\");\n}\n";
        assert_eq!(
            file_problems(LIBRARY, text),
            [format!("{LIBRARY}:2: `env::var` belongs to the programs, in `crates/kiln/src/bin` and `xtask`")]
        );
        let allowed = [
            "crates/kiln/src/bin/kiln/x.rs",
            "crates/kiln/src/environment.rs",
            "xtask/src/x.rs",
            "tests/src/x.rs",
            "crates/kiln-x/examples/x.rs",
            "crates/kiln-x/benches/x.rs",
            "crates/kiln-x/src/x/tests.rs",
        ];
        for path in allowed {
            assert_eq!(file_problems(path, text), [""; 0], "{path}");
        }
        assert_eq!(file_problems(LIBRARY, &format!("#[cfg(test)]\nmod tests {{\n{text}}}\n")), [""; 0]);
        assert_eq!(file_problems(LIBRARY, "fn x() {\n    eprintln!(\"x\");\n}\n").len(), 1);
    }

    #[test]
    fn long_files_are_found() {
        let lines = |count: usize| "//\n".repeat(count);
        assert_eq!(file_problems(LIBRARY, &lines(MOST_LINES)), [""; 0]);
        assert_eq!(file_problems(LIBRARY, &lines(MOST_LINES + 1)).len(), 1);
        assert_eq!(file_problems("crates/kiln-x/examples/x.rs", &lines(MOST_EXAMPLE_LINES + 1)).len(), 1);
    }

    #[test]
    fn a_library_documents_everything_and_exports_its_own() {
        let problems = file_problems("crates/kiln-x/src/lib.rs", "pub use kiln_schema::Task;\n");
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert_eq!(
            file_problems("crates/kiln-x/src/lib.rs", "#![deny(missing_docs)]\nuse kiln_schema::Task;\n"),
            [""; 0]
        );
    }
}
