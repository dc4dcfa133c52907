//! Checks that "Add a task" in `CONTRIBUTING.md` names every file that names a task.

use std::path::Path;

use anyhow::{Context, Result};

use super::sources::rust_files;

/// Names of one task. A file that names this task is taken to name all tasks.
const NAMES: [&str; 3] = ["Task::QuestionAnswering", "Network::QuestionAnswering", "Self::QuestionAnswering"];

pub fn problems(root: &Path) -> Result<Vec<String>> {
    let guide = std::fs::read_to_string(root.join("CONTRIBUTING.md")).context("cannot read CONTRIBUTING.md")?;
    let mut sources = Vec::new();
    for path in rust_files(&root.join("crates"))? {
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let shown = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        sources.push((shown, text));
    }
    let mut problems = unlisted(section(&guide), &sources);
    problems.extend(missing(section(&guide), root));
    Ok(problems)
}

fn section(guide: &str) -> &str {
    let start = guide.find("## Add a task").unwrap_or(guide.len());
    let section = &guide[start..];
    section.find("\n## ").map_or(section, |end| &section[..end])
}

/// Files that name a task and are not in the guide. A `<task>.rs` in the guide covers all files of its folder.
fn unlisted(section: &str, sources: &[(String, String)]) -> Vec<String> {
    let is_test = |path: &str| ["/tests/", "/examples/", "/benches/"].iter().any(|folder| path.contains(folder));
    let is_named = |path: &str| {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        section.contains(&format!("`{path}`")) || section.contains(&format!("`{folder}/<"))
    };
    let names_task = |text: &str| {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        NAMES.iter().any(|name| code.contains(name))
    };
    let problem = |path: &str| format!("CONTRIBUTING.md: \"Add a task\" does not name `{path}`, which names a task");
    let unlisted = sources.iter().filter(|(path, text)| !is_test(path) && names_task(text) && !is_named(path));
    unlisted.map(|(path, _)| problem(path)).collect()
}

/// Files that the guide names and that do not exist.
fn missing(section: &str, root: &Path) -> Vec<String> {
    let paths = section.split('`').skip(1).step_by(2).filter(|path| path.starts_with("crates/") && !path.contains('<'));
    let missing = paths.filter(|path| !root.join(path).exists());
    missing.map(|path| format!("CONTRIBUTING.md: `{path}` is not there")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_names_a_task_is_in_the_guide() {
        let guide =
            "## Add a task\n1. `crates/a/src/x.rs`, `crates/b/src/<task>.rs`\n## Add a metric\n`crates/c/src/y.rs`\n";
        let code = "match task { Task::QuestionAnswering => 1 }";
        let source = |path: &str, text: &str| (path.to_owned(), text.to_owned());
        let sources = [
            source("crates/a/src/x.rs", code),
            source("crates/b/src/answers.rs", code),
            source("crates/c/src/y.rs", code),
            source("crates/c/tests/z.rs", code),
            source("crates/c/src/w.rs", &format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{ {code} }}")),
        ];
        let problems = unlisted(section(guide), &sources);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("`crates/c/src/y.rs`"), "{problems:?}");
    }

    #[test]
    fn a_file_that_is_gone_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(missing("`crates/a/src/x.rs` `crates/a/src/<x>.rs`", folder.path()).len(), 1);
    }
}
