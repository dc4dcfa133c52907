//! Checks the files at the top of the workspace, the data set cards, and the packages' manifests.

use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::{Metadata, TargetKind};

/// The names in the root folder, without dot-files and uncommitted files.
const TOP_LEVEL: [&str; 13] = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "clippy.toml",
    "crates",
    "datasets",
    "deny.toml",
    "tests",
    "xtask",
];

pub fn problems(root: &Path, metadata: &Metadata) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let top = names(root)?;
    for name in TOP_LEVEL.iter().filter(|name| !top.iter().any(|there| there == **name)) {
        problems.push(format!("{name}: is missing"));
    }
    for name in top {
        let is_other = name.starts_with('.') || ["runs", "target"].contains(&name.as_str());
        if !is_other && !TOP_LEVEL.contains(&name.as_str()) {
            problems.push(format!("{name}: does not belong at the top of the workspace"));
        }
    }
    let datasets = root.join("datasets");
    for name in if datasets.is_dir() { names(&datasets)? } else { Vec::new() } {
        let folder = datasets.join(&name);
        if folder.join("recipe.toml").is_file() && !folder.join("README.md").is_file() {
            problems.push(format!("datasets/{name}: a recipe has a card, README.md, beside it"));
        }
    }
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let folder = package.manifest_path.parent().and_then(|folder| folder.file_name()).unwrap_or_default();
        let mut problem = |what: &str| problems.push(format!("{}: {what}", package.manifest_path));
        if package.description.is_none() || package.license.is_none() {
            problem("a package has a description and a licence");
        }
        let is_library = package.targets.iter().any(|target| target.kind.contains(&TargetKind::Lib));
        let is_published = package.publish.is_none();
        if is_published && folder != name {
            problem(&format!("the package is called `{name}`, its folder `{folder}`"));
        }
        if is_published
            && is_library
            && !package.targets.iter().any(|target| target.kind.contains(&TargetKind::Example))
        {
            problem("a library has an example");
        }
    }
    Ok(problems)
}

/// The names of the entries in a folder.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names: Vec<String> =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<std::io::Result<_>>()?;
    names.sort();
    Ok(names)
}
