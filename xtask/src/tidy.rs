//! Checks that no compiler has: the crate map, rules for sources, and the required files.

mod architecture;
mod contributing;
mod furniture;
mod sources;

use anyhow::{Context, Result, bail};

use crate::{figures, workspace};

pub fn run() -> Result<()> {
    let problems = problems()?;
    for problem in &problems {
        eprintln!("{problem}");
    }
    if !problems.is_empty() {
        bail!("problems found: {}", problems.len());
    }
    Ok(())
}

/// The problems, each with its file at the beginning.
fn problems() -> Result<Vec<String>> {
    let metadata = workspace::metadata()?;
    let map = workspace::root().join("crates/README.md");
    let map = std::fs::read_to_string(&map).with_context(|| format!("cannot read {}", map.display()))?;
    let mut problems = architecture::problems(&map, &architecture::members(&metadata));
    problems.extend(sources::problems(workspace::root())?);
    problems.extend(contributing::problems(workspace::root())?);
    problems.extend(figures::problems(workspace::root())?);
    problems.extend(furniture::problems(workspace::root(), &metadata)?);
    Ok(problems)
}
