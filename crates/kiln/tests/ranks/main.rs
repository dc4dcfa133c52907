//! Trainings that `mpirun` distributes to processes: the same bytes for any number of processes, and after every fault.

mod place;

use std::fs;

use place::{Place, WHOLE};
use serde_json::Value;

/// One process alone, and 1, 2 and 4 processes under `mpirun`, write the same models.
fn writes_the_same_bytes(place: &Place, command: &str, settings: &[&str]) {
    let (code, log) = place.alone(command, "alone", settings);
    assert_eq!(code, Some(0), "{log}");
    for ranks in [1, 2, 4] {
        let out = format!("ranks-{ranks}");
        let (code, log) = place.together(ranks, command, &out, settings);
        assert_eq!(code, Some(0), "{log}");
        assert_eq!(log.matches("report.json, report.html").count(), 1, "the first process alone speaks: {log}");
        for folder in ["model", "adapter"] {
            let file = |run: &str| {
                let names = ["model.safetensors", "head.safetensors", "adapter_model.safetensors"];
                let paths = names.map(|name| place.path(run).join(folder).join(name));
                paths.map(|path| fs::read(path).ok())
            };
            assert!(file(&out) == file("alone"), "{folder} of {ranks} processes with {settings:?}");
        }
        let report = fs::read(place.path(&out).join("report.json")).expect("a report");
        let report: Value = serde_json::from_slice(&report).expect("JSON");
        let shared = &report["train"]["ranks"];
        if ranks == 1 {
            assert!(shared.is_null(), "{shared}");
            continue;
        }
        assert!(shared["ranks"] == ranks && shared["reduce"] == "exact", "{shared}");
        assert!(shared["bytes_sent_per_update"].as_u64() > Some(0), "{shared}");
    }
    assert!(fs::metadata(place.path("alone/model/model.safetensors")).is_ok_and(|file| file.len() > 0));
}

#[test]
fn full_training_in_f32() {
    writes_the_same_bytes(&Place::new(), "train", &[]);
}

#[test]
fn full_training_in_bf16_with_gradient_checkpointing() {
    writes_the_same_bytes(&Place::new(), "train", &["train.precision=bf16", "train.gradient_checkpointing=true"]);
}

#[test]
fn a_frozen_encoder() {
    writes_the_same_bytes(&Place::new(), "train", &["model.encoder=frozen", "model.hidden_layers=[16]"]);
}

/// An adapter needs a trained base.
#[test]
fn lora() {
    let place = Place::new();
    let (code, log) = place.alone("train", "base", &[]);
    assert_eq!(code, Some(0), "{log}");
    let fresh = fs::read_to_string(place.path("recipe.toml")).expect("a small file");
    let recipe = fresh.replace("model.source = \"sample\"\nmodel.size = \"tiny\"", "model.source = \"dir:base/model\"");
    assert!(recipe != fresh);
    fs::write(place.path("recipe.toml"), recipe).expect("a small file");
    writes_the_same_bytes(&place, "train", &["model.encoder=lora", "adapter.dropout=0.1"]);
}

/// The word embeddings are also the decoder's weights, so a batch adds two gradients to them.
#[test]
fn pre_training_with_gradient_checkpointing() {
    let place = Place::new();
    let corpus = (0..60).map(|document| format!("今天天气很好。\n第{document}次去公园。\n茶杯打碎了。\n\n"));
    fs::write(place.path("corpus.txt"), corpus.collect::<String>()).expect("a small file");
    let recipe = "task = \"masked-lm\"\nnext_sentence = true\nmodel.source = \"sample\"\nmodel.size = \"tiny\"\n\
                  [data]\nfiles = [\"corpus.txt\"]\n\
                  [train]\nepochs = 1\nbatch_size = 4\ngradient_accumulation_steps = 4\nmax_length = 24\n";
    fs::write(place.path("recipe.toml"), recipe).expect("a small file");
    writes_the_same_bytes(&place, "pretrain", &["train.gradient_checkpointing=true"]);
}

#[test]
fn a_fast_sum_is_named_in_the_report() {
    let place = Place::new();
    let (code, log) = place.together(2, "train", "run", &["train.reduce=fast"]);
    assert!(code == Some(0) && log.contains("2 processes, reduce = \"fast\""), "{log}");
    let report = fs::read_to_string(place.path("run/report.json")).expect("a report");
    assert!(report.contains("\"reduce\": \"fast\""), "{report}");
}

#[test]
fn processes_with_other_data_or_without_work_are_refused() {
    let place = Place::new();
    let rows = fs::read_to_string(place.path("train.tsv")).expect("a small file");
    fs::write(place.path("other.tsv"), rows + "\n多加的一行\tpositive").expect("a small file");
    let other = ["--set", "data.train=other.tsv"];
    let same = place.command("train", "run", &[]);
    let command = [&["-np", "1"], &words(&same)[..], &[":", "-np", "1"], &words(&same)[..], &other].concat();
    let (code, log) = place.mpirun(&command);
    assert!(code == Some(2) && log.contains("rank 1 has a different data.train"), "{log}");
    let (code, log) = place.together(5, "train", "run", &[]);
    assert!(code == Some(2) && log.contains("5 processes train together, and an update has 4 batches"), "{log}");
    assert_eq!(log.matches("error:").count(), 1, "{log}");
    assert!(!place.path("run").exists(), "nothing is written");
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

/// A fault of a process.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Killed during updates.
    Killed,
    /// Killed while a checkpoint is written.
    KilledInCheckpoint,
    /// Stopped (SIGSTOP), but not ended.
    Stalled,
    /// Asked to end, by SIGTERM.
    Asked,
}

/// Two processes train until one of them has a fault. The job ends, no process is left, and three processes resume the run
/// and write the same bytes as a run without a fault.
fn survives(place: &Place, fault: Fault, rank: usize) {
    let out = "run";
    // The timeout is long enough for a busy machine, unless the test is about the timeout.
    let job = place.start(out, if matches!(fault, Fault::Stalled) { 5 } else { 600 });
    place.wait_for(&place.path(out).join("checkpoints/last.safetensors"));
    match fault {
        Fault::KilledInCheckpoint => place.wait_for_temporary(&place.path(out).join("checkpoints")),
        _ => std::thread::sleep(std::time::Duration::from_millis(30 * rank as u64)),
    }
    let signal = match fault {
        Fault::Killed | Fault::KilledInCheckpoint => "KILL",
        Fault::Stalled => "STOP",
        Fault::Asked => "TERM",
    };
    place.signal(rank, signal);
    let (code, log) = job.end();
    assert!(code != Some(0), "{fault:?} of rank {rank}: {log}");
    let expected = match fault {
        Fault::Killed | Fault::KilledInCheckpoint => "signal 9",
        Fault::Stalled => "has stalled",
        Fault::Asked => "continue with --resume",
    };
    assert!(log.contains(expected), "{fault:?} of rank {rank}: {log}");
    place.assert_no_process_is_left();
    let (code, log) = place.together(3, "train", out, &[WHOLE, &["--resume"]].concat());
    assert!(code == Some(0) && log.contains("updates and"), "it is resumed: {log}");
    same_model(place, out);
    fs::remove_dir_all(place.path(out)).expect("it was made");
}

fn same_model(place: &Place, out: &str) {
    let read = |run: &str| fs::read(place.path(run).join("model/model.safetensors")).expect("a model");
    assert!(read(out) == read("whole"), "the same bytes");
}

/// `KILN_FAULT_ROUNDS` sets how often each kind of fault is tested.
#[test]
fn a_job_with_a_fault_ends_and_is_resumed_to_the_same_bytes() {
    let rounds = std::env::var("KILN_FAULT_ROUNDS").map_or(1, |rounds| rounds.parse().expect("a number"));
    let place = Place::new();
    let (code, log) = place.alone("train", "whole", WHOLE);
    assert_eq!(code, Some(0), "{log}");
    for round in 0..rounds {
        survives(&place, Fault::Killed, 1 - round % 2);
        survives(&place, Fault::KilledInCheckpoint, round % 2);
        survives(&place, Fault::Stalled, 1 - round % 2);
        survives(&place, Fault::Asked, 1 - round % 2);
    }
}
