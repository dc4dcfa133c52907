use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use cargo_metadata::{Message, Metadata, MetadataCommand, TargetKind};

/// The folder that holds the workspace's `Cargo.toml`.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// A call of the cargo that runs this program, in the workspace's folder.
///
/// The variables that cargo sets for this program's own package are removed. Some build scripts read them, so that their
/// packages would be compiled again after each call without them.
pub fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
    command.current_dir(root()).args(arguments);
    command
}

/// Runs a command in this program's terminal.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command.status().with_context(|| format!("cannot run `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// An executable from a build.
pub struct Program {
    /// Folder name of its package.
    pub package: String,
    pub name: String,
    pub path: PathBuf,
}

/// Runs a build and returns its executables.
pub fn programs(mut build: Command) -> Result<Vec<Program>> {
    build.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let output = build.output().context("cannot run cargo")?;
    if !output.status.success() {
        bail!("`{}` failed: {}", shown(&build), output.status);
    }
    let mut programs = Vec::new();
    for message in Message::parse_stream(output.stdout.as_slice()) {
        if let Message::CompilerArtifact(artifact) = message?
            && !artifact.target.kind.contains(&TargetKind::CustomBuild)
            && let Some(path) = artifact.executable
        {
            let folder = artifact.manifest_path.parent().context("a manifest lies in a folder")?;
            let package = folder.file_name().unwrap_or_default().to_owned();
            programs.push(Program { package, name: artifact.target.name, path: path.into() });
        }
    }
    Ok(programs)
}

/// The metadata of the workspace's packages, without dependencies.
pub fn metadata() -> Result<Metadata> {
    let mut command = MetadataCommand::new();
    command.current_dir(root()).no_deps();
    command.exec().context("cannot read the workspace")
}

/// A command as it would be typed.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_stem().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
