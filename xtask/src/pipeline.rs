use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result};

use crate::workspace;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What computes; `kiln`'s own default when left out.
    #[arg(long)]
    backend: Option<Backend>,
    /// What `kiln pipeline` is given.
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

    /// The feature of `kiln` that holds it, where the default ones do not.
    fn feature(self) -> Option<&'static str> {
        match self {
            Self::Flex => None,
            Self::Ndarray | Self::Cuda | Self::Wgpu => Some(self.name()),
        }
    }
}

/// Builds `kiln`, and becomes `kiln pipeline`.
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

/// Replaces this process, so that an interrupt and the exit code are the program's alone.
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
