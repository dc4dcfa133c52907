//! Measured figures. The bench writes them to `benches/figures*.md` of a crate, and the same text is between two marks in
//! the crate's README.

use std::path::Path;

use anyhow::{Context, Result};

/// The figures of all benches without a file of their own.
pub const FIGURES: &str = "benches/figures.md";

/// Writes figures to a crate's file, `benches/figures*.md`, and into its README.
pub fn keep(package: &Path, file: &str, figures: &str) -> Result<()> {
    let readme = package.join("README.md");
    let text = std::fs::read_to_string(&readme).with_context(|| format!("cannot read {}", readme.display()))?;
    let [start, _] = marks(file);
    let [before, _, after] = parts(&text, file).with_context(|| format!("{}: found no {start}", readme.display()))?;
    let file = package.join(file);
    std::fs::write(&file, figures).with_context(|| format!("cannot write {}", file.display()))?;
    let text = format!("{before}{figures}{after}");
    std::fs::write(&readme, text).with_context(|| format!("cannot write {}", readme.display()))
}

/// READMEs whose figures differ from those that the bench has written.
pub fn problems(root: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let crates = root.join("crates");
    for entry in std::fs::read_dir(&crates).with_context(|| format!("cannot read {}", crates.display()))? {
        let package = entry?.path();
        let readme = package.join("README.md");
        let text = std::fs::read_to_string(&readme).unwrap_or_default();
        let shown = readme.strip_prefix(root).unwrap_or(&readme).display();
        let mut files: Vec<String> = marked(&text).chain(files(&package)).collect();
        files.sort();
        files.dedup();
        for file in files {
            let figures = std::fs::read_to_string(package.join(&file)).ok();
            match (parts(&text, &file), figures) {
                (Some([_, between, _]), Some(figures)) if between == figures => {}
                (Some(_), Some(_)) => problems.push(format!("{shown}: its figures are not those of {file}")),
                (_, None) => problems.push(format!("{shown}: {file} is missing")),
                (None, Some(_)) => problems.push(format!("{shown}: it has no marks for {file}")),
            }
        }
    }
    Ok(problems)
}

/// Files of figures that a README has a mark for.
fn marked(readme: &str) -> impl Iterator<Item = String> {
    let marks = readme.lines().filter_map(|line| line.strip_prefix("<!-- benches/")?.strip_suffix(" -->"));
    marks.map(|name| format!("benches/{name}"))
}

/// Files of figures that a package has.
fn files(package: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(package.join("benches")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let figures = names.filter(|name| name.starts_with("figures") && name.ends_with(".md"));
    figures.map(|name| format!("benches/{name}"))
}

/// The marks before and after a file's figures.
fn marks(file: &str) -> [String; 2] {
    [format!("<!-- {file} -->\n"), format!("<!-- end of {file} -->\n")]
}

/// The text of a README before the figures, the figures, and the text after them.
fn parts<'a>(readme: &'a str, file: &str) -> Option<[&'a str; 3]> {
    let [start, end] = marks(file);
    let start = readme.find(&start)? + start.len();
    let end = start + readme[start..].find(&end)?;
    Some([&readme[..start], &readme[start..end], &readme[end..]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_kept_and_others_are_found() -> Result<()> {
        let root = std::env::temp_dir().join(format!("kiln-figures-{}", std::process::id()));
        let package = root.join("crates/a");
        std::fs::create_dir_all(package.join("benches"))?;
        let [start, end] = marks(FIGURES);
        std::fs::write(package.join("README.md"), format!("Text\n{start}old\n{end}more\n"))?;
        keep(&package, FIGURES, "| 1.5 |\n")?;
        assert_eq!(std::fs::read_to_string(package.join("README.md"))?, format!("Text\n{start}| 1.5 |\n{end}more\n"));
        assert!(problems(&root)?.is_empty());

        std::fs::write(package.join("README.md"), format!("Text\n{start}| 2.5 |\n{end}more\n"))?;
        assert_eq!(problems(&root)?, ["crates/a/README.md: its figures are not those of benches/figures.md"]);
        std::fs::write(package.join("README.md"), "Text\n")?;
        assert_eq!(problems(&root)?, ["crates/a/README.md: it has no marks for benches/figures.md"]);
        Ok(std::fs::remove_dir_all(root)?)
    }
}
