//! Training in several processes.

use std::fmt;

use anyhow::Context;
use kiln_kernels::slices::Simd;
use kiln_train::{Error, Fingerprint, check_ranks, check_same};

use crate::fingerprint::sha256;
use crate::stages::settle::Plan;
use crate::{Observer, UsageError};

/// Checks that all processes have the same settings and files, before any of them writes.
pub(crate) fn meet(plan: &Plan<'_>, observer: &mut dyn Observer) -> anyhow::Result<()> {
    let (reduction, train) = (plan.reduction, &plan.recipe.train);
    if reduction.ranks() == 1 {
        return Ok(());
    }
    check_ranks(reduction, train.gradient_accumulation_steps).map_err(usage)?;
    check_same(reduction, &of_process(plan)?).map_err(usage)?;
    let ranks = reduction.ranks();
    observer.stage("ranks", "kiln-train", &format_args!("{ranks} processes, reduce = \"{}\"", train.reduce.name()));
    Ok(())
}

/// The fingerprint of the run, with everything else that must be the same in every process.
fn of_process(plan: &Plan<'_>) -> anyhow::Result<Fingerprint> {
    let mut fingerprint = plan.fingerprint.clone();
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let settings = [
        ("--out", plan.folder.path.display().to_string()),
        ("checkpoint in --out", plan.folder.resume.to_string()),
        ("instruction set", format!("{:?}", Simd::detect())),
        ("version of kiln", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    fingerprint.settings.extend(settings.map(|(key, value)| (key.to_owned(), value)));
    fingerprint.contents.insert("build of kiln".to_owned(), sha256([program])?);
    Ok(fingerprint)
}

fn usage(error: Error) -> UsageError {
    UsageError(error.to_string())
}

/// Ends a process that is not the first. Only the first process has the model.
#[derive(Debug)]
pub(crate) struct PartDone;

impl fmt::Display for PartDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the first process has the model")
    }
}

impl std::error::Error for PartDone {}
