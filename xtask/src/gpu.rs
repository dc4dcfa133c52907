//! What can be checked of the graphics cards' backends without a card: the types of both, and what wgpu computes on
//! Vulkan's software adapter. CUDA shares that path but for the last step, the compiler of the kernels.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::workspace::{self, cargo};

/// Debian's package with the software adapter.
const DRIVER: &str = "mesa-vulkan-drivers";

/// Checks the types, then runs the tests of wgpu where there is an adapter.
pub fn check() -> Result<()> {
    check_types()?;
    if has_adapter() {
        return run_wgpu_tests();
    }
    let skipped = format!("there is no Vulkan driver; on Debian `apt-get install {DRIVER}` as root brings one");
    if std::env::var_os("KILN_REQUIRE_ASSETS").is_some() {
        bail!("the tests of wgpu cannot run: {skipped}");
    }
    eprintln!("SKIPPED, the tests of wgpu: {skipped}");
    Ok(())
}

/// Of the one crate that names the cards' backends; the others are generic over them. `DOCS_RS` has the build scripts do
/// without CUDA's own files.
fn check_types() -> Result<()> {
    let arguments = ["check", "--release", "--package=kiln-backend", "--features=cuda,wgpu"];
    workspace::run(cargo(arguments).env("DOCS_RS", "1"))
}

/// Forward parity with PyTorch and a training step, of the package that needs no crates that read data sets.
fn run_wgpu_tests() -> Result<()> {
    let packages = ["--package=kiln-train", "--package=kiln-backend", "--features=kiln-backend/wgpu"];
    let mut command = cargo(["test", "--release", "--test=backends"]);
    command.args(packages);
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // The driver wants a folder for its sockets.
        command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    }
    workspace::run(&mut command)
}

/// Whether Vulkan finds a driver, which is installed where this may be done.
fn has_adapter() -> bool {
    let found = || {
        let folders = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"];
        folders.iter().any(|folder| Path::new(folder).read_dir().is_ok_and(|mut files| files.next().is_some()))
    };
    if !found() && cfg!(target_os = "linux") {
        for arguments in [["update", "-qq"].as_slice(), &["install", "-y", "-qq", DRIVER]] {
            // Without the right to install, there is no adapter: the caller says so.
            let installed = Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").status();
            if !installed.is_ok_and(|status| status.success()) {
                break;
            }
        }
    }
    found()
}
