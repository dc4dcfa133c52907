//! `kiln forecast` compared with the training that it predicts.

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn kiln(arguments: &[&str], cache: &Path) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_kiln")).args(arguments).env("KILN_CACHE", cache).output();
    let output = output.expect("the binary runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Times depend on the machine, so the test checks only updates, tokens and bytes.
#[test]
fn updates_and_bytes_are_those_of_the_training() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let recipe = support::small_sample(folder.path());
    let recipe = recipe.to_str().expect("UTF-8");
    for encoder in ["full", "frozen"] {
        let set = format!("model.encoder={encoder}");
        let settings = ["--recipe", recipe, "--json", "--set", "train.epochs=2", "--set", &set];
        let forecast = kiln(&[&["forecast"], &settings[..]].concat(), folder.path());
        let out = folder.path().join(encoder);
        let out_text = out.to_str().expect("UTF-8");
        let report = kiln(&[&["train", "--out", out_text], &settings[..]].concat(), folder.path());
        assert_eq!(forecast["steps"], report["train"]["steps"], "{encoder}");
        let seconds = &forecast["seconds"];
        let seconds = ["epoch", "total"].map(|name| seconds[name].as_f64().expect("a number"));
        assert!(seconds[0] > 0.0 && seconds[1] > 2.0 * seconds[0], "{encoder}: {seconds:?}");
        let bytes = |folder: &Path| -> u64 {
            let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").metadata());
            entries.map(|metadata| metadata.expect("a file").len()).sum()
        };
        let written = bytes(&out.join("model")) + bytes(&out.join("checkpoints"));
        let estimated = forecast["disk_bytes"].as_u64().expect("a number");
        assert!(estimated >= written && estimated < written + (2 << 20), "{encoder}: {estimated} against {written}");
        let memory = ["/peak_rss_bytes", "/train/peak_rss_bytes"];
        let estimated = forecast.pointer(memory[0]).and_then(Value::as_u64).expect("a number") as f64;
        let used = report.pointer(memory[1]).and_then(Value::as_u64).expect("a number") as f64;
        assert!(estimated > 0.7 * used && estimated < 1.5 * used, "{encoder}: {estimated} against {used}");
        assert_eq!(forecast["fits"], true);
    }
}
