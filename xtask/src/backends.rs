//! Tests of the backends that are not compiled in by default and need no GPU: ndarray, and wgpu on Vulkan's software
//! adapter. CUDA shares the code path of wgpu except for the kernel compiler; clippy checks its types.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::workspace::{self, cargo};

/// Debian package of the software adapter.
const DRIVER: &str = "mesa-vulkan-drivers";

/// Runs the tests on ndarray, and on wgpu if there is an adapter.
pub fn run() -> Result<()> {
    let mut features = vec!["kiln-backend/ndarray"];
    if has_adapter() {
        features.push("kiln-backend/wgpu");
    } else {
        let skipped = format!("there is no Vulkan driver; on Debian `apt-get install {DRIVER}` as root brings one");
        if std::env::var_os("KILN_REQUIRE_ASSETS").is_some() {
            bail!("the tests of wgpu cannot run: {skipped}");
        }
        eprintln!("SKIPPED, the tests of wgpu: {skipped}");
    }
    run_tests(&features.join(","))
}

/// Tests forward parity with PyTorch and a training step, in packages that need no crates for reading data sets. Burn has
/// other features than in the other steps, so it is compiled again, without optimization because the tests are small.
fn run_tests(features: &str) -> Result<()> {
    let mut command = cargo(["test", "--release", "--test=backends", "--package=kiln-train", "--package=kiln-backend"]);
    command.args(["--features", features, "--config", r#"profile.release.package."*".opt-level=0"#]);
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // The driver needs a folder for its sockets.
        command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    }
    workspace::run(&mut command)
}

/// Whether Vulkan finds a driver. Installs one if it is missing and permissions allow it.
fn has_adapter() -> bool {
    let found = || {
        let folders = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"];
        folders.iter().any(|folder| Path::new(folder).read_dir().is_ok_and(|mut files| files.next().is_some()))
    };
    if !found() && cfg!(target_os = "linux") {
        for arguments in [["update", "-qq"].as_slice(), &["install", "-y", "-qq", DRIVER]] {
            // Without the permission to install, there is no adapter, which the caller reports.
            let installed = Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").status();
            if !installed.is_ok_and(|status| status.success()) {
                break;
            }
        }
    }
    found()
}
