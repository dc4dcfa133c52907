//! The output of commands, also when it cannot be written.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use serde_json::Value;

use super::{RUN, fail, failed, finished, kiln, sample_file, sample_recipe, succeed, text};

#[test]
fn an_output_is_never_its_own_input() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let content = "今天[MASK]气很好\n";
    fs::write(path("a.txt"), content).expect("a small file");
    let mut outs = vec![path("a.txt"), path("./a.txt")];
    fs::hard_link(path("a.txt"), path("hard.txt")).expect("a link");
    outs.push(path("hard.txt"));
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("a.txt", path("link.txt")).expect("a link");
        outs.push(path("link.txt"));
    }
    for out in &outs {
        for command in [&["predict", "--model", text(&RUN)][..], &["fill-mask"], &["embed", "--model", text(&RUN)]] {
            let (code, message) = fail(&[command, &["--file", text(&path("a.txt")), "--out", text(out)]].concat());
            assert!(code == 2 && message.contains("same file"), "{command:?} {}: {message}", out.display());
        }
    }
    fs::write(path("vocab.txt"), content).expect("a small file");
    let (code, message) = fail(&["vocabulary", "--file", text(&path("vocab.txt")), "--out", text(folder.path())]);
    assert!(code == 2 && message.contains("same file"), "{message}");
    for name in ["a.txt", "vocab.txt"] {
        assert_eq!(fs::read_to_string(path(name)).expect("it is there"), content);
    }
}

#[test]
fn a_run_overwrites_nothing_and_has_its_folder_to_itself() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (recipe, out) = (sample_recipe(), folder.path().join("run"));
    let train = ["train", "--recipe", text(&recipe), "--out", text(&out), "--set", "train.epochs=1"];
    // A checkpoint that could be the base model.
    fs::create_dir_all(out.join("model")).expect("it is writable");
    fs::write(out.join("model/config.json"), "{}").expect("it is writable");
    let (code, message) = fail(&train);
    assert!(code == 2 && message.contains("has `model/config.json` but no run.toml"), "{message}");
    assert_eq!(fs::read_to_string(out.join("model/config.json")).expect("it is there"), "{}");
    fs::remove_file(out.join("model/config.json")).expect("it is there");
    // Another process, here this one, trains in the folder.
    fs::create_dir_all(out.join("checkpoints")).expect("it is writable");
    let lock = File::create(out.join("checkpoints/.lock")).expect("it is writable");
    lock.try_lock().expect("nobody holds it");
    let (code, message) = fail(&train);
    assert!(code == 2 && message.contains("another process is training in"), "{message}");
    assert!(!out.join("run.toml").exists());
    drop(lock);
    let (code, message) = fail(&[&train[..], &["--set", "train.max_length=2"]].concat());
    assert!(code == 2 && message.contains("train.max_length is 2; expected at least 3"), "{message}");
    // An interrupted run has no model.
    fs::write(out.join("run.toml"), "").expect("it is writable");
    let (code, message) = fail(&["predict", "--model", text(&out), "--text", "很好"]);
    assert!(code == 1 && message.contains("run is a run without a model"), "{message}");
    fs::remove_file(out.join("run.toml")).expect("it is there");
    succeed(&train);
}

#[cfg(unix)]
#[test]
fn a_link_stays_a_link_and_a_device_a_device() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (file, link) = (folder.path().join("answers.jsonl"), folder.path().join("link.jsonl"));
    std::os::unix::fs::symlink("answers.jsonl", &link).expect("a link");
    let test = sample_file("test.tsv");
    let predict = |out: &str| succeed(&["predict", "--model", text(&RUN), "--file", text(&test), "--out", out]);
    predict(text(&link));
    assert!(link.is_symlink());
    assert_eq!(fs::read_to_string(&file).expect("it was written").lines().count(), 300);
    predict("/dev/null");
    assert!(!fs::metadata("/dev/null").expect("it is there").is_file());
    assert_eq!(predict("/dev/stdout").lines().count(), 300);
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    let (code, message) = fail(&["predict", "--model", text(&RUN), "--text", "好", "--device", "9"]);
    assert!(code == 2 && message.contains("flex") && message.contains("device 9"), "{message}");
}

#[test]
fn a_reader_that_leaves_ends_the_command_quietly() {
    let test = sample_file("test.tsv");
    for arguments in [
        &["predict", "--model", text(&RUN), "--file", text(&test)][..],
        &["eval", "--model", text(&RUN), "--data", text(&test)],
        &["data", "audit", "--recipe", text(&sample_recipe())],
        &["pull", "sample"],
    ] {
        let mut command = kiln(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(141), "{arguments:?}: {message}");
        assert!(!message.contains("error") && !message.contains("panicked"), "{arguments:?}: {message}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let full = || File::options().write(true).open("/dev/full").expect("Linux has it");
    let (code, message) = failed(kiln(&["pull", "sample"]).stdout(full()).output().expect("the binary runs"));
    assert!(code == 1 && message.contains("standard output cannot be written: No space left"), "{code} {message}");
    let test = sample_file("test.tsv");
    let (code, message) = fail(&["predict", "--model", text(&RUN), "--file", text(&test), "--out", "/dev/full"]);
    assert!(code == 1 && message.contains("/dev/full: cannot be written"), "{code} {message}");
    assert!(!fs::metadata("/dev/full").expect("it is there").is_file());
}

#[test]
fn a_training_goes_on_when_its_log_is_closed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("run");
    let mut command =
        kiln(&["train", "--recipe", text(&sample_recipe()), "--out", text(&out), "--set", "train.epochs=1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    // Reads one byte and closes the pipe, as `| head -c 1` does.
    let mut stderr = child.stderr.take().expect("it is piped");
    stderr.read_exact(&mut [0]).expect("the first stage is told");
    drop(stderr);
    let report = finished(child.wait_with_output().expect("it ends"));
    assert!(report.contains("accuracy"), "{report}");
    let same = fs::read(RUN.join("model/model.safetensors")).expect("a model");
    assert!(fs::read(out.join("model/model.safetensors")).expect("a model") == same);
}

#[test]
fn whatever_is_typed_is_answered_or_refused() {
    let ask = |stdin: Stdio, typed: &[u8]| {
        let mut command = kiln(&["predict", "--model", text(&RUN)]);
        let command = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        if let Some(mut stdin) = child.stdin.take() {
            // The process may end before it has read everything.
            let _ = stdin.write_all(typed);
        }
        child.wait_with_output().expect("it ends")
    };
    let long = "好".repeat(100_000);
    let answers = finished(ask(Stdio::piped(), format!("\n \t \n{long}\n\t\n很好").as_bytes()));
    assert_eq!(answers.lines().count(), 2, "{answers}");
    let (code, message) = failed(ask(Stdio::piped(), b"\xff\xfe\n"));
    assert!(code == 1 && message.contains("UTF-8"), "{message}");
    assert_eq!(finished(ask(Stdio::null(), b"")), "");
    #[cfg(unix)]
    {
        let folder = File::open(env!("CARGO_MANIFEST_DIR")).expect("a folder");
        let (code, message) = failed(ask(folder.into(), b""));
        assert!(code == 1 && message.contains("standard input cannot be read"), "{message}");
        let command = format!("exec {} predict --model {} <&-", env!("CARGO_BIN_EXE_kiln"), RUN.display());
        let closed = std::process::Command::new("sh").args(["-c", &command]).output().expect("a shell");
        assert_eq!(finished(closed), "");
    }
}

/// Both tasks of the sample, with only the data inside the program, and the commands printed at the end.
#[test]
fn the_pipeline_runs_either_task_of_the_sample() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (task, key) in [("sequence-classification", "accuracy"), ("token-classification", "entity_f1")] {
        let out = folder.path().join(task);
        let shown = succeed(&["pipeline", "--task", task, "--out", text(&out), "--set", "train.epochs=2"]);
        let report: Value =
            serde_json::from_slice(&fs::read(out.join("report.json")).expect("a report")).expect("JSON");
        assert_eq!(report["task"], task);
        // Guessing gives 0.5, and no entities.
        assert!(report["splits"]["validation"][key].as_f64().is_some_and(|score| score > 0.0), "{report}");
        let errors = fs::read_to_string(out.join("errors.tsv")).expect("its mistakes");
        let worst: Vec<&str> = errors.lines().nth(1).expect("a mistake").split('\t').collect();
        if task == "sequence-classification" {
            let tokens = worst.last().expect("columns");
            assert!(
                tokens.split(", ").count() > 1 && tokens.contains(['+', '-']),
                "what drove the decision: {worst:?}"
            );
        }
        let worst = worst[1];
        assert!(shown.contains("mistakes") && shown.contains(&format!("({worst})")), "{shown}");
        for command in ["kiln predict --text", "kiln serve", "kiln eval --data"] {
            assert!(shown.contains(command), "{command}: {shown}");
        }
    }
    let refused = fail(&["pipeline", "--task", "token-classification", "--recipe", text(&sample_recipe())]);
    assert!(refused.0 == 2 && refused.1.contains("--recipe"), "{refused:?}");
}

#[test]
fn a_training_can_be_watched() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (recipe, out) = (sample_recipe(), folder.path().join("run"));
    let arguments = ["train", "--recipe", text(&recipe), "--out", text(&out), "--watch", "--set", "train.epochs=2"];
    let mut child = kiln(&arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the binary runs");
    let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
    let address = lines.by_ref().find_map(|line| Some(line.split_once("http://")?.1.to_owned())).expect("an address");
    lines.by_ref().find(|line| line.starts_with("epoch")).expect("an epoch ends");
    let mut stream = TcpStream::connect(&address).expect("the page is served");
    write!(stream, "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("it answers");
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("</strong>updates") && page.contains("<svg"), "{page}");
    lines.for_each(drop);
    assert!(child.wait().expect("it ends").success());
}
