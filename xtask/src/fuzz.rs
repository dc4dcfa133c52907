use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace;

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Seconds to run; 60 by default
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Seed of the changes; the one of `ci` by default
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Run only the cases of this reader, such as `parquet`
    #[arg(long, value_name = "READER")]
    only: Option<String>,
    /// Number of the first case
    #[arg(long, value_name = "N")]
    first: Option<u64>,
    /// Run only this case, and print the path of its input
    #[arg(long, value_name = "N")]
    case: Option<u64>,
}

/// Builds the fuzzer and `kiln`, and runs the fuzzer. Both are built together with all packages, so that no dependency is
/// compiled again with other features.
pub fn run(args: &Args) -> Result<()> {
    let build = ["build", "--workspace", "--exclude=xtask", "--bins", "--test=fuzz", "--release"];
    let programs = workspace::programs(workspace::cargo(build))?;
    let path = |name: &str| {
        let program = programs.iter().find(|program| program.name == name);
        program.map(|program| &program.path).with_context(|| format!("the build made no program `{name}`"))
    };
    let mut fuzz = Command::new(path("fuzz")?);
    fuzz.current_dir(workspace::root()).arg("--kiln").arg(path("kiln")?);
    fuzz.arg("--scratch").arg(workspace::metadata()?.target_directory.join("fuzz"));
    for (option, number) in
        [("--seconds", args.seconds), ("--seed", args.seed), ("--first", args.first), ("--case", args.case)]
    {
        if let Some(number) = number {
            fuzz.args([option, &number.to_string()]);
        }
    }
    if let Some(only) = &args.only {
        fuzz.args(["--only", only]);
    }
    let status = fuzz.status().context("cannot run the fuzzer")?;
    if !status.success() {
        bail!("the fuzzer found something: CONTRIBUTING.md, section Fuzz, says what to do with it");
    }
    Ok(())
}
