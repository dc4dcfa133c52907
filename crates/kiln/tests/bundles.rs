//! `kiln bundle` and `kiln verify`, and the commands that read a bundle, through the binary.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use serde_json::Value;

/// A cache, a run on the sample, and a bundle of it in each precision, for all tests. It is emptied at the start, because
/// statics are never dropped.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bundles");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("it is writable");
    let recipe = support::small_sample(&folder);
    let run = folder.join("run");
    let mut train = command(&folder, &["train", "--recipe", text(&recipe), "--out", text(&run)]);
    assert!(train.args(["--set", "train.epochs=2"]).output().expect("the binary runs").status.success());
    for precision in PRECISIONS {
        let out = folder.join(precision);
        let arguments = ["bundle", "--model", text(&run), "--out", text(&out), "--precision", precision];
        let output = command(&folder, &arguments).output().expect("the binary runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    folder
});

const PRECISIONS: [&str; 3] = ["f32", "bf16", "int8"];

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.args(arguments).env("KILN_CACHE", folder.join("cache")).stdin(Stdio::null());
    command
}

fn kiln(arguments: &[&str]) -> Output {
    command(&FOLDER, arguments).output().expect("the binary runs")
}

fn succeed(arguments: &[&str]) -> String {
    let output = kiln(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("results are UTF-8")
}

/// The exit code, stdout and stderr of a command that must fail.
fn fail(arguments: &[&str]) -> (i32, String, String) {
    let output = kiln(arguments);
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(!output.status.success() && !stderr.contains("panicked"), "{arguments:?}: {stderr}");
    (output.status.code().expect("it was not killed"), stdout, stderr)
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&succeed(&[arguments, &["--json"]].concat())).expect("one JSON object")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

fn test_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../kiln-sample/files/test.tsv")
}

/// A copy of a bundle, for a test that damages it.
fn copy_of(precision: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for entry in fs::read_dir(FOLDER.join(precision)).expect("a bundle") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, folder.path().join(path.file_name().expect("a name"))).expect("it is writable");
    }
    folder
}

#[test]
fn a_bundle_answers_as_its_model_does() {
    let (run, test) = (FOLDER.join("run"), test_file());
    let answers = |model: &Path, more: &[&str]| {
        let arguments = ["predict", "--model", text(model), "--file", text(&test)];
        let lines = succeed(&[&arguments, more].concat());
        lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")).collect::<Vec<_>>()
    };
    for precision in PRECISIONS {
        let (bundle, asked) = (FOLDER.join(precision), ["--precision", precision]);
        let (of_bundle, of_model) = (answers(&bundle, &[]), answers(&run, &asked));
        let labels = |answers: &[Value]| answers.iter().map(|answer| answer["label"].clone()).collect::<Vec<_>>();
        let same = labels(&of_bundle).iter().zip(labels(&of_model)).filter(|(a, b)| **a == *b).count();
        assert!(same * 100 >= of_model.len() * 97, "{same} of {} labels are the same in {precision}", of_model.len());
        if precision == "f32" {
            assert_eq!(of_bundle, of_model, "nothing is rounded");
        }
        // The predictions do not depend on the process, the number of threads or the batch.
        for threads in ["1", "2", "5"] {
            let arguments = ["predict", "--model", text(&bundle), "--file", text(&test), "--batch-size", "7"];
            let output = command(&FOLDER, &arguments).env("RAYON_NUM_THREADS", threads).output().expect("it runs");
            let expected: Vec<String> = of_bundle.iter().map(Value::to_string).collect();
            let lines = String::from_utf8_lossy(&output.stdout);
            let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON").to_string());
            assert_eq!(lines.collect::<Vec<_>>(), expected, "{precision}, {threads} threads");
        }
        let evaluated = json(&["eval", "--model", text(&bundle), "--data", text(&test)]);
        assert_eq!(evaluated["splits"]["test"]["examples"], of_bundle.len());
        let vector = json(&["embed", "--model", text(&bundle), "--text", "房间很干净"]);
        assert!(vector["embedding"].as_array().is_some_and(|vector| !vector.is_empty()));
        let tokens = json(&["tokenize", "--model", text(&bundle), "--text", "房间很干净"]);
        assert_eq!(tokens, json(&["tokenize", "--model", text(&run), "--text", "房间很干净"]));
    }
    let bundle = FOLDER.join("int8");
    let (code, _, message) = fail(&["predict", "--model", text(&bundle), "--text", "好", "--precision", "f32"]);
    assert!(code == 2 && message.contains("precision is int8, not f32"), "{code}: {message}");
}

#[test]
fn a_masked_language_model_is_bundled_too() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("bundle");
    let manifest = json(&["bundle", "--model", "sample", "--out", text(&out), "--precision", "int8"]);
    assert_eq!((&manifest["task"], &manifest["precision"]), (&"masked-lm".into(), &"int8".into()));
    let filled = |model: &str| json(&["fill-mask", "--model", model, "--text", "房间很[MASK]净"])["filled"].clone();
    assert_eq!(filled(text(&out)), filled("sample"));
}

/// Calibration on the same texts gives the same bundle, whatever the format of their file.
#[test]
fn int8_is_calibrated_on_texts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (data, run, texts) = (test_file(), FOLDER.join("run"), folder.path().join("texts.txt"));
    let calibrated = |name: &str, file: &Path| {
        let out = folder.path().join(name);
        let arguments = ["bundle", "--model", text(&run), "--out", text(&out), "--precision", "int8"];
        let manifest = json(&[&arguments[..], &["--calibrate", text(file)]].concat());
        (out, manifest)
    };
    let (bundle, manifest) = calibrated("labelled", &data);
    let smoothing = &manifest["smoothing"];
    assert_eq!((&smoothing["texts"], smoothing["candidates"].as_array().map(Vec::len)), (&150.into(), Some(4)));
    let errors = smoothing["candidates"].as_array().expect("there are four").iter();
    let best = errors.min_by(|a, b| {
        let [a, b] = [a, b].map(|candidate| candidate["mean_squared_error"].as_f64().expect("a number"));
        a.total_cmp(&b)
    });
    assert_eq!(best.expect("there are four")["strength"], smoothing["strength"]);
    assert_eq!(json(&["verify", text(&bundle)])["manifest"], manifest);
    let answer = json(&["predict", "--model", text(&bundle), "--text", "房间很干净"]);
    assert_eq!(answer["label"], "positive", "{answer}");

    let lines = fs::read_to_string(&data).expect("it is there");
    let every_second = lines.lines().skip(1).step_by(2).filter_map(|line| line.split('\t').next());
    let raw: String = every_second.map(|review| format!("{review}\n")).collect();
    fs::write(&texts, raw).expect("it is writable");
    let (_, same) = calibrated("raw", &texts);
    assert_eq!((&same["sha256"], &same["smoothing"]), (&manifest["sha256"], smoothing));

    let out = folder.path().join("static");
    let arguments = ["bundle", "--model", text(&run), "--out", text(&out), "--precision", "int8", "--static-scales"];
    let (code, _, message) = fail(&arguments);
    assert!(code == 2 && message.contains("--calibrate"), "{code}: {message}");
    let check = ["--calibrate", text(&data), "--check", text(&data), "--max-loss", "2"];
    let fixed = json(&[&arguments[..], &check].concat());
    assert_eq!((&fixed["smoothing"]["scales"], &smoothing["scales"]), (&"static".into(), &Value::Null));
    assert_eq!(json(&["verify", text(&out)])["manifest"], fixed);

    for precision in ["f32", "bf16"] {
        let out = folder.path().join(precision);
        let arguments = ["bundle", "--model", text(&run), "--out", text(&out), "--precision", precision];
        let (code, _, message) = fail(&[&arguments[..], &["--calibrate", text(&data)]].concat());
        assert!(code == 2 && message.contains("--calibrate is for --precision int8"), "{code}: {message}");
        assert!(!out.exists());
    }
}

#[test]
fn bundles_are_as_small_as_their_precision() {
    let bytes = |precision: &str| fs::metadata(FOLDER.join(precision).join("model.safetensors")).expect("a file").len();
    let full = bytes("f32") as f64;
    assert!(bytes("bf16") as f64 / full < 0.52 && bytes("int8") as f64 / full < 0.28);
    for precision in PRECISIONS {
        let bundle = FOLDER.join(precision);
        let manifest: Value =
            serde_json::from_slice(&fs::read(bundle.join("manifest.json")).expect("a file")).expect("JSON");
        assert_eq!(manifest["labels"], serde_json::json!(["negative", "positive"]));
        assert_eq!(manifest["base"]["source"], "sample");
        for name in ["report.json", "run.toml"] {
            let [bundled, own] = [bundle.join(name), FOLDER.join("run").join(name)].map(fs::read);
            assert_eq!(bundled.expect("it is in the bundle"), own.expect("it is in the run"));
        }
        let verified = json(&["verify", text(&bundle)]);
        assert_eq!((&verified["ok"], &verified["manifest"]), (&true.into(), &manifest));
    }
}

#[test]
fn every_file_that_differs_is_named() {
    let bundle = copy_of("int8");
    let path = |name: &str| bundle.path().join(name);
    let mut weights = fs::read(path("model.safetensors")).expect("a file");
    let middle = weights.len() / 2;
    weights[middle] ^= 0x40;
    fs::write(path("model.safetensors"), weights).expect("it is writable");
    fs::remove_file(path("vocab.txt")).expect("it is there");
    fs::write(path("note.txt"), "").expect("it is writable");
    let (code, stdout, message) = fail(&["verify", text(bundle.path())]);
    assert_eq!((code, stdout.as_str()), (1, "changed  model.safetensors\nextra    note.txt\nmissing  vocab.txt\n"));
    assert!(message.contains("in 3 files"), "{message}");
    let (_, stdout, _) = fail(&["verify", text(bundle.path()), "--json"]);
    let differences: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(differences["changed"], serde_json::json!(["model.safetensors"]));
    let (code, _, message) = fail(&["predict", "--model", text(bundle.path()), "--text", "好"]);
    assert!(code == 1 && message.contains("model.safetensors is changed"), "{code}: {message}");

    let extended = copy_of("f32");
    fs::write(extended.path().join("note.txt"), "").expect("it is writable");
    let (_, _, message) = fail(&["verify", text(extended.path())]);
    assert!(message.ends_with("the bundle differs from its manifest in 1 file\n"), "{message}");

    fs::write(path("manifest.json"), "{").expect("it is writable");
    let (code, _, message) = fail(&["verify", text(bundle.path())]);
    assert!(code == 1 && message.contains("manifest.json: invalid JSON"), "{code}: {message}");
    let (code, _, message) = fail(&["verify", text(&FOLDER.join("run"))]);
    assert!(code == 1 && message.contains("it is not a bundle"), "{code}: {message}");
    let (code, _, _) = fail(&["verify", text(&FOLDER.join("absent"))]);
    assert_eq!(code, 1);
}

/// Other vectors than those that the model was trained for would be wrong without a sign of it.
#[test]
fn a_pooling_that_is_not_supported_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (model, out) = (folder.path().join("model"), folder.path().join("bundle"));
    fs::create_dir_all(model.join("1_Pooling")).expect("a folder");
    for entry in fs::read_dir(FOLDER.join("run/model")).expect("a model") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, model.join(path.file_name().expect("a name"))).expect("it is writable");
    }
    let pooling = model.join("1_Pooling/config.json");
    fs::write(&pooling, r#"{"pooling_mode_mean_tokens": false, "pooling_mode_max_tokens": true}"#).expect("writable");
    let arguments = ["bundle", "--model", text(&model), "--out", text(&out), "--precision", "f32"];
    let (code, _, message) = fail(&arguments);
    let expected = format!("error: {}: the pooling mode `max` is not supported", pooling.display());
    assert!(code == 1 && message.starts_with(&expected) && !out.exists(), "{code}: {message}");
    fs::write(&pooling, r#"{"pooling_mode_mean_tokens": false, "pooling_mode_cls_token": true}"#).expect("writable");
    assert_eq!(json(&arguments)["vectors"]["pooling"], "cls");
}

/// The encoder of the damaged model has a weight too large to share an 8-bit scale with the others of its row.
#[test]
fn a_bundle_that_loses_too_much_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (data, run, out) = (test_file(), FOLDER.join("run"), folder.path().join("bundle"));
    let arguments = ["bundle", "--model", text(&run), "--out", text(&out), "--precision", "int8"];
    let check = ["--check", text(&data), "--max-loss"];
    let manifest = json(&[&arguments[..], &check, &["100"]].concat());
    assert_eq!((&manifest["check"]["metric"], &manifest["check"]["examples"]), (&"accuracy".into(), &300.into()));
    let saved: Value = serde_json::from_slice(&fs::read(out.join("manifest.json")).expect("a file")).expect("JSON");
    assert_eq!(saved["check"], manifest["check"]);
    assert_eq!(json(&["verify", text(&out)])["ok"], true);
    let (code, _, message) = fail(&[&arguments[..], &check, &["100"]].concat());
    assert!(code == 1 && message.contains("the path exists already"), "{code}: {message}");

    // The file is labelled with the model's predictions in f32. The bundle predicts other labels for some rows.
    let model = damaged_model(folder.path(), &run.join("model"));
    let labelled = folder.path().join("labelled.tsv");
    let columns = ["--header", "--text-column", "text"];
    let predicted = succeed(&[&["predict", "--model", text(&model), "--file", text(&data)][..], &columns].concat());
    let rows = predicted.lines().map(|line| {
        let answer: Value = serde_json::from_str(line).expect("JSON");
        format!("{}\t{}\n", answer["text"].as_str().expect("a text"), answer["label"].as_str().expect("a label"))
    });
    fs::write(&labelled, format!("text\tlabel\n{}", rows.collect::<String>())).expect("it is writable");
    let refused = folder.path().join("refused");
    let arguments = ["bundle", "--model", text(&model), "--out", text(&refused), "--precision", "int8"];
    let check = ["--label", "label", "--check", text(&labelled)];
    let arguments = [&arguments[..], &columns, &check].concat();
    let (code, _, message) = fail(&arguments);
    assert!(code == 1 && message.contains("points of accuracy (1.0000 → "), "{code}: {message}");
    assert!(message.contains("more than --max-loss 0.5; nothing was written"), "{message}");
    let left: Vec<_> =
        fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(!refused.exists() && !left.iter().any(|name| name.to_string_lossy().starts_with(".kiln-")), "{left:?}");
    for wrong in ["-1", "nan", "many"] {
        assert_eq!(fail(&[&arguments[..], &["--max-loss", wrong]].concat()).0, 2);
    }
}

/// The model with a weight in the first column of each row of a feed-forward layer that is 20,000 times the others, so that
/// the int8 scale of the row becomes too large for them. The layer before it outputs zero for that column, so that the f32
/// model ignores it.
fn damaged_model(folder: &Path, model: &Path) -> PathBuf {
    let damaged = folder.join("damaged");
    fs::create_dir(&damaged).expect("a folder");
    for entry in fs::read_dir(model).expect("a folder") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, damaged.join(path.file_name().expect("a name"))).expect("it is writable");
    }
    let path = damaged.join("model.safetensors");
    let mut bytes = fs::read(&path).expect("a file");
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let tensors: Value = serde_json::from_slice(&bytes[8..header]).expect("a header");
    let mut write = |name: &str, at: usize, value: f32| {
        let tensor = tensors.get(name).unwrap_or_else(|| &tensors[format!("bert.{name}")]);
        let start = header + tensor["data_offsets"][0].as_u64().expect("an offset") as usize;
        bytes[start + at * 4..][..4].copy_from_slice(&value.to_le_bytes());
    };
    let of = |name: &str| tensors.get(name).unwrap_or_else(|| &tensors[format!("bert.{name}")])["shape"].clone();
    for layer in 0.. {
        let [up, down] = ["intermediate", "output"].map(|block| format!("encoder.layer.{layer}.{block}.dense.weight"));
        let shape = of(&down);
        let (Some(hidden), Some(intermediate)) = (shape[0].as_u64(), shape[1].as_u64()) else { break };
        (0..hidden).for_each(|column| write(&up, column as usize, 0.0));
        write(&up.replace("weight", "bias"), 0, 0.0);
        (0..hidden).for_each(|row| write(&down, (row * intermediate) as usize, 1000.0));
    }
    fs::write(&path, bytes).expect("it is writable");
    damaged
}
