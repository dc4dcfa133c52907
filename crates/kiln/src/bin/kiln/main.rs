//! The command line program `kiln`. It parses arguments, prints results and handles signals. The library `kiln` does the
//! work.

mod cli;
mod console;
mod ranks;
mod panics;
mod interrupt;
mod transfers;
mod dashboard;
#[cfg(feature = "serve")]
mod watch;
mod observer;
mod input;
mod commands;

use std::process::ExitCode;

use clap::Parser;
use kiln::{ErrorKind, Interrupted, RecipeError, UsageError};
use kiln_backend::{Backend, Entry, NoDevice, UnknownBackend};

#[cfg(feature = "cluster")]
use crate::cli::ClusterCommand;
use crate::cli::{Cli, Command, DataCommand};
use crate::console::OutputError;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match panics::catch_panic(|| run(&cli)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            let is_closed = error.chain().any(|cause| cause.downcast_ref().is_some_and(OutputError::is_closed));
            if is_closed {
                // Exits silently with the code of SIGPIPE: the reader of the results needs no more.
                return ExitCode::from(141);
            }
            ranks::before_an_error();
            console::error(&error);
            exit_code(&error)
        }
        Err(internal_error) => {
            ranks::before_an_error();
            console::log(internal_error);
            ExitCode::from(101)
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    match &cli.command {
        // These compute nothing, so they need no backend.
        Command::Pull(arguments) => commands::pull::run(arguments, cli.json),
        Command::Data(DataCommand::Audit(arguments)) => commands::data::audit(arguments, cli.json),
        Command::Data(DataCommand::Split(arguments)) => commands::data::split(arguments, cli.json),
        Command::Vocabulary(arguments) => commands::vocabulary::run(arguments, cli.json),
        Command::Tokenize(arguments) => commands::tokenize::run(arguments, cli.json),
        Command::Verify(arguments) => commands::bundle::verified(arguments, cli.json),
        // The server has its own thread pool.
        #[cfg(feature = "serve")]
        Command::Serve(_) => on_backend(cli),
        #[cfg(feature = "cluster")]
        Command::Cluster(ClusterCommand::Scheduler(arguments)) => commands::cluster::scheduler(arguments, cli.json),
        // Its own threads run the computations in the pool.
        #[cfg(feature = "cluster")]
        Command::Cluster(_) => on_backend(cli),
        // Runs inside the thread pool. From outside, every parallel operation would wake a thread and wait for it.
        _ => rayon::scope(|_| on_backend(cli)),
    }
}

fn on_backend(cli: &Cli) -> anyhow::Result<()> {
    kiln_backend::run(&cli.backend, OnBackend(cli)).unwrap_or_else(|unknown| Err(unknown.into()))
}

/// Runs a command on the selected backend.
struct OnBackend<'a>(&'a Cli);

impl Entry for OnBackend<'_> {
    type Output = anyhow::Result<()>;

    fn run<B: Backend>(self) -> anyhow::Result<()> {
        let Cli { command, json, .. } = self.0;
        let device = B::find_device(self.0.device::<B>())?;
        match command {
            Command::Pipeline(arguments) => commands::train::pipeline::<B>(arguments, self.0),
            Command::Train(arguments) => commands::train::train::<B>(arguments, self.0),
            Command::Pretrain(arguments) => commands::train::pretrain::<B>(arguments, self.0),
            Command::Data(DataCommand::Suspects(arguments)) => commands::suspects::run::<B>(arguments, self.0),
            Command::Eval(arguments) => commands::eval::run::<B>(arguments, *json, &device),
            Command::Forecast(arguments) => commands::forecast::run::<B>(arguments, self.0),
            Command::Compare(arguments) => commands::compare::run::<B>(arguments, *json, &device),
            Command::Sweep(arguments) => commands::sweep::run::<B>(arguments, self.0),
            Command::Predict(arguments) => commands::predict::run::<B>(arguments, *json, &device),
            Command::FillMask(arguments) => commands::predict::fill_mask::<B>(arguments, *json, &device),
            Command::Embed(arguments) => commands::embed::run::<B>(arguments, *json, &device),
            #[cfg(feature = "serve")]
            Command::Serve(arguments) => commands::serve::run::<B>(arguments, *json, &device),
            #[cfg(feature = "cluster")]
            Command::Cluster(ClusterCommand::Executor(arguments)) => {
                commands::cluster::executor::<B>(arguments, *json, &device)
            }
            #[cfg(feature = "cluster")]
            Command::Cluster(ClusterCommand::Run(arguments)) => commands::cluster::run::<B>(arguments, *json, &device),
            #[cfg(feature = "cluster")]
            Command::Cluster(ClusterCommand::Scheduler(_)) => unreachable!("it runs without a backend"),
            Command::Bundle(arguments) => commands::bundle::run::<B>(arguments, *json, &device),
            Command::Merge(arguments) => commands::merge::run(arguments, *json, &device),
            Command::Pull(_)
            | Command::Data(_)
            | Command::Vocabulary(_)
            | Command::Tokenize(_)
            | Command::Verify(_) => {
                unreachable!("these run without a backend")
            }
        }
    }
}

/// The exit code: 2 for wrong usage or an invalid recipe, the code of the signal for an interrupted training, 1 for
/// anything else.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    let kind = error.downcast_ref().map(kiln::Error::kind);
    let is_usage = error.chain().any(|cause| {
        cause.is::<RecipeError>() || cause.is::<UsageError>() || cause.is::<UnknownBackend>() || cause.is::<NoDevice>()
    });
    match kind {
        Some(ErrorKind::Interrupted) => ExitCode::from(interrupt::exit_code()),
        _ if error.is::<Interrupted>() => ExitCode::from(interrupt::exit_code()),
        Some(ErrorKind::Usage) => ExitCode::from(2),
        _ if is_usage => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    }
}
