use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result};

use crate::workspace;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Compute backend; `kiln`'s default if not given.
    #[arg(long)]
    backend: Option<Backend>,
    /// Arguments for `kiln pipeline`.
    #[arg(last = true)]
    kiln_args: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Backend {
    Flex,
    Ndarray,
    Cuda,
    Wgpu,
}

impl Backend {
    fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Ndarray => "ndarray",
            Self::Cuda => "cuda",
            Self::Wgpu => "wgpu",
        }
    }

    /// The feature of `kiln` with this backend, unless it is a default feature.
    fn feature(self) -> Option<&'static str> {
        match self {
            Self::Flex => None,
            Self::Ndarray | Self::Cuda | Self::Wgpu => Some(self.name()),
        }
    }
}

/// Builds `kiln` and replaces this process with `kiln pipeline`.
pub fn run(args: &Args) -> Result<()> {
    let mut build = workspace::cargo(["build", "--release", "--package", "kiln"]);
    if let Some(feature) = args.backend.and_then(Backend::feature) {
        build.args(["--features", feature]);
    }
    workspace::run(&mut build)?;

    let program = format!("kiln{}", std::env::consts::EXE_SUFFIX);
    let mut kiln = Command::new(workspace::metadata()?.target_directory.join("release").join(program));
    kiln.arg("pipeline");
    if let Some(backend) = args.backend {
        kiln.args(["--backend", backend.name()]);
    }
    kiln.args(&args.kiln_args);
    become_program(&mut kiln)
}

/// Replaces this process, so that the program itself gets interrupts and sets the exit code.
#[cfg(unix)]
fn become_program(command: &mut Command) -> Result<()> {
    let error = std::os::unix::process::CommandExt::exec(command);
    Err(error).with_context(|| format!("cannot run `{}`", workspace::shown(command)))
}

#[cfg(not(unix))]
fn become_program(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run `{}`", workspace::shown(command)))?;
    std::process::exit(status.code().unwrap_or(1))
}
