//! Runs every command in a `sh` block of the README unchanged, from the root of the checkout.

use std::path::Path;
use std::process::Command;

#[test]
fn the_readme_s_commands_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = std::fs::read_to_string(root.join("README.md")).expect("there is a README");
    let blocks = readme.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let commands: Vec<&str> = blocks.flat_map(str::lines).filter(|line| !line.is_empty()).collect();
    assert!(commands.len() >= 5, "{commands:?}");

    let run_folder = root.join("target/readme-run");
    if run_folder.exists() {
        std::fs::remove_dir_all(&run_folder).expect("an earlier run of this test can be removed");
    }
    for command in commands {
        let output = Command::new("sh").arg("-c").arg(command).current_dir(&root).output().expect("a shell");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "`{command}`: {}\n{out}\n{err}", output.status);
        assert!(!out.is_empty(), "`{command}` prints its result");
        if command == "cargo xtask pipeline" {
            // The last line is the run's folder. It is removed, so that runs do not pile up in the checkout.
            let run = root.join(out.lines().last().expect("it prints some lines"));
            for name in ["report.json", "report.html", "errors.tsv", "metrics.jsonl", "run.toml", "model/config.json"] {
                assert!(run.join(name).is_file(), "{}: {name}", run.display());
            }
            std::fs::remove_dir_all(&run).expect("it can be removed");
        }
    }
}
