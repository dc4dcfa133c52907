//! The signals that end a training.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use super::{kiln, sample_recipe, succeed, text};

/// Starts a training of three epochs and waits until the first has ended.
fn started(mut command: Command) -> (Child, std::io::Lines<BufReader<ChildStderr>>) {
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the binary runs");
    let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    lines.by_ref().map_while(Result::ok).find(|line| line.starts_with("epoch")).expect("an epoch ends");
    (child, lines)
}

fn send(signal: &str, child: &Child) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("there is kill");
    assert!(sent.success());
}

fn training(out: &Path) -> Vec<String> {
    let (recipe, out) = (sample_recipe(), text(out).to_owned());
    ["train", "--recipe", text(&recipe), "--out", &out, "--set", "train.epochs=3"].map(str::to_owned).to_vec()
}

/// The same command with the default action of SIGHUP, even if this test runs under `nohup`.
fn heeding(command: Command) -> Command {
    if !cfg!(target_os = "linux") {
        return command;
    }
    let mut env = Command::new("env");
    env.arg("--default-signal=HUP").arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    env.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    env
}

#[test]
fn a_training_that_is_told_to_end_saves_first() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (signal, code) in [("-TERM", 143), ("-HUP", 129)] {
        let out = folder.path().join(signal);
        let arguments = training(&out);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (mut child, lines) = started(heeding(kiln(&arguments)));
        send(signal, &child);
        let remaining: Vec<String> = lines.map_while(Result::ok).collect();
        assert_eq!(child.wait().expect("it ends").code(), Some(code), "{remaining:?}");
        assert!(remaining.iter().any(|line| line.contains("--resume")), "{remaining:?}");
        assert!(out.join("checkpoints/last.safetensors").is_file() && !out.join("report.json").exists());
        succeed(&[&arguments[..], &["--resume"]].concat());
        let report = fs::read_to_string(out.join("report.json")).expect("it was written");
        let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
        assert_eq!(report["train"]["epochs"], 3);
    }
}

/// `nohup` starts programs with SIGHUP ignored.
#[cfg(target_os = "linux")]
#[test]
fn a_hangup_that_is_to_be_ignored_is_ignored() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("run");
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_kiln")]).args(training(&out));
    shell.env("KILN_CACHE", folder.path().join("cache")).stdin(Stdio::null());
    let (mut child, lines) = started(shell);
    send("-HUP", &child);
    let remaining: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(child.wait().expect("it ends").success(), "{remaining:?}");
    assert!(out.join("report.json").is_file());
}
