//! Measured figures: `benches/figures.md` of a crate, which the bench writes, and the same text between two marks of the
//! crate's README.

use std::path::Path;

use anyhow::{Context, Result};

const FILE: &str = "benches/figures.md";
const START: &str = "<!-- benches/figures.md -->\n";
const END: &str = "<!-- end of benches/figures.md -->\n";

/// Puts figures into a crate's file and into its README.
pub fn keep(package: &Path, figures: &str) -> Result<()> {
    let (file, readme) = (package.join(FILE), package.join("README.md"));
    let text = std::fs::read_to_string(&readme).with_context(|| format!("cannot read {}", readme.display()))?;
    let [before, _, after] = parts(&text).with_context(|| format!("{}: found no {START}", readme.display()))?;
    std::fs::write(&file, figures).with_context(|| format!("cannot write {}", file.display()))?;
    let text = format!("{before}{figures}{after}");
    std::fs::write(&readme, text).with_context(|| format!("cannot write {}", readme.display()))
}

/// READMEs that say other figures than the bench has written.
pub fn problems(root: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let crates = root.join("crates");
    for entry in std::fs::read_dir(&crates).with_context(|| format!("cannot read {}", crates.display()))? {
        let package = entry?.path();
        let readme = package.join("README.md");
        let (text, figures) = (std::fs::read_to_string(&readme), std::fs::read_to_string(package.join(FILE)));
        let (text, figures) = (text.unwrap_or_default(), figures.ok());
        let shown = readme.strip_prefix(root).unwrap_or(&readme).display();
        match (parts(&text), figures) {
            (Some([_, between, _]), Some(figures)) if between == figures => {}
            (None, None) => {}
            (Some(_), Some(_)) => problems.push(format!("{shown}: its figures are not those of {FILE}")),
            (Some(_), None) => problems.push(format!("{shown}: {FILE} is missing")),
            (None, Some(_)) => problems.push(format!("{shown}: it has no marks for {FILE}")),
        }
    }
    Ok(problems)
}

/// A README up to the figures, the figures, and what follows.
fn parts(readme: &str) -> Option<[&str; 3]> {
    let start = readme.find(START)? + START.len();
    let end = start + readme[start..].find(END)?;
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
        std::fs::write(package.join("README.md"), format!("Text\n{START}old\n{END}more\n"))?;
        keep(&package, "| 1.5 |\n")?;
        assert_eq!(std::fs::read_to_string(package.join("README.md"))?, format!("Text\n{START}| 1.5 |\n{END}more\n"));
        assert!(problems(&root)?.is_empty());

        std::fs::write(package.join("README.md"), format!("Text\n{START}| 2.5 |\n{END}more\n"))?;
        assert_eq!(problems(&root)?, ["crates/a/README.md: its figures are not those of benches/figures.md"]);
        std::fs::write(package.join("README.md"), "Text\n")?;
        assert_eq!(problems(&root)?, ["crates/a/README.md: it has no marks for benches/figures.md"]);
        Ok(std::fs::remove_dir_all(root)?)
    }
}
