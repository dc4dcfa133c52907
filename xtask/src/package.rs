//! Checks that each crate's package contains all files that its sources include. A file in the checkout is missing from the
//! package if `.gitignore` or the manifest's `include` leaves it out, or if it is outside the crate's folder.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use cargo_metadata::Package;

use crate::workspace;

pub fn run() -> Result<()> {
    let mut problems = Vec::new();
    for package in workspace::metadata()?.workspace_packages() {
        // An empty list of registries means `publish = false`.
        if package.publish.as_ref().is_none_or(|registries| !registries.is_empty()) {
            problems.extend(missing_files(package)?);
        }
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    if !problems.is_empty() {
        bail!("{} files are missing from packages", problems.len());
    }
    Ok(())
}

/// Files that the package's sources include and its archive does not contain.
fn missing_files(package: &Package) -> Result<Vec<String>> {
    let mut list = workspace::cargo(["package", "--list", "--allow-dirty", "--package", package.name.as_str()]);
    let output = list.stderr(std::process::Stdio::inherit()).output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("`{}` failed: {}", workspace::shown(&list), output.status);
    }
    let listing = String::from_utf8(output.stdout).context("a package's file has no UTF-8 name")?;
    let files: BTreeSet<&Path> = listing.lines().map(Path::new).collect();

    let folder = package.manifest_path.parent().context("a manifest lies in a folder")?.as_std_path();
    let sources = files.iter().filter(|file| file.extension().is_some_and(|ending| ending == "rs"));
    let mut problems = Vec::new();
    for source in sources {
        let path = folder.join(source);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for included in included_files(source, &text) {
            if !files.contains(included.as_path()) {
                let name = &package.name;
                problems.push(format!(
                    "{name}: {} includes {}, which is not packaged",
                    source.display(),
                    included.display()
                ));
            }
        }
    }
    // Targets of the checkout that the archive does not contain.
    for target in &package.targets {
        if let Ok(source) = target.src_path.as_std_path().strip_prefix(folder)
            && !files.contains(source)
        {
            problems.push(format!("{}: {} is not packaged", package.name, source.display()));
        }
    }
    Ok(problems)
}

/// The files that a source includes, relative to its crate's folder.
fn included_files(source: &Path, text: &str) -> Vec<PathBuf> {
    let folder = source.parent().unwrap_or(Path::new(""));
    let macros = [concat!("include_", "bytes!("), concat!("include_", "str!("), concat!("include", "!(")];
    let starts = macros.iter().flat_map(|name| text.match_indices(name).map(|(at, name)| &text[at + name.len()..]));
    starts
        .filter_map(|rest| {
            let arguments = &rest[..rest.find(");").or(rest.find(')'))?];
            let literals: Vec<&str> = arguments.split('"').skip(1).step_by(2).collect();
            match literals.split_first()? {
                // `concat!(env!("CARGO_MANIFEST_DIR"), "/data/x")`
                (&"CARGO_MANIFEST_DIR", rest) => Some(normal(Path::new(rest.concat().trim_start_matches('/')))),
                // A build script's output is not a file of the package.
                (&"OUT_DIR", _) => None,
                (first, _) => Some(normal(&folder.join(first))),
            }
        })
        .collect()
}

/// Removes `.` from a path, and resolves `..` where possible.
fn normal(path: &Path) -> PathBuf {
    let mut parts: Vec<Component<'_>> = Vec::new();
    for part in path.components() {
        match (part, parts.last()) {
            (Component::CurDir, _) => {}
            (Component::ParentDir, Some(Component::Normal(_))) => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inclusions_are_found_in_every_form() {
        let include = |name: &str, arguments: &str| format!("const X: &[u8] = include{name}!({arguments});\n");
        let text = [
            include("_bytes", "\"../data/vocab.txt\""),
            include("_str", "concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/data/recipe.toml\")"),
            include("_str", "\n    \"./near.txt\",\n"),
            include("_str", "\"../../../outside.txt\""),
            include("", "concat!(env!(\"OUT_DIR\"), \"/made.rs\")"),
        ]
        .concat();
        let mut files = included_files(Path::new("src/sample.rs"), &text);
        files.sort();
        let expected = ["../../outside.txt", "data/recipe.toml", "data/vocab.txt", "src/near.txt"];
        assert_eq!(files, expected.map(PathBuf::from));
    }
}
