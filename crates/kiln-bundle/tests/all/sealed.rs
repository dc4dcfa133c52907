//! A bundle of the sample model: made, verified, opened and damaged.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_backend::{Backend, Flex};
use kiln_bundle::{Bundle, DifferenceKind, Error, MANIFEST, Manifest, Model, SealConfig, verify};
use kiln_heads::Pooling;
use kiln_kernels::Precision;
use kiln_predict::{Embedder, Predictor};
use kiln_schema::Task;
use tempfile::TempDir;

/// A folder with the sample checkpoint, a masked language model, and a bundle of it.
struct Sealed {
    folder: TempDir,
    manifest: Manifest,
}

impl Sealed {
    fn new(precision: Precision) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let sample = kiln_sample::unpack(&folder.path().join("sample")).expect("it is writable");
        let config = SealConfig { precision };
        let out = folder.path().join("bundle");
        let manifest = config.seal(&sample.model, &out, &Flex::device(0)).expect("the sample is whole");
        Self { folder, manifest }
    }

    fn bundle(&self) -> PathBuf {
        self.folder.path().join("bundle")
    }

    fn sample(&self) -> PathBuf {
        self.folder.path().join("sample/model")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.bundle().join(name), bytes).expect("it is writable");
    }

    /// The message of a verification that fails, but not because of differences.
    fn malformed(&self) -> String {
        match verify(&self.bundle()) {
            Err(Error::Differs { differences, .. }) => panic!("{differences:?}"),
            Err(error) => error.to_string(),
            Ok(_) => panic!("it is accepted"),
        }
    }

    /// The names of the files that differ, and how.
    fn differences(&self) -> Vec<(String, DifferenceKind)> {
        match verify(&self.bundle()) {
            Err(Error::Differs { differences, .. }) => {
                differences.into_iter().map(|difference| (difference.name, difference.kind)).collect()
            }
            other => panic!("{other:?}"),
        }
    }
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).expect("a folder").next().is_none()
}

#[test]
fn a_sealed_model_opens_answers_and_makes_vectors() {
    let sealed = Sealed::new(Precision::F32);
    assert_eq!(verify(&sealed.bundle()).expect("nothing was changed"), sealed.manifest);
    assert_eq!((sealed.manifest.task, sealed.manifest.precision), (Some(Task::MaskedLm), Precision::F32));
    let device = Flex::device(0);
    let bundle = Bundle::open(&sealed.bundle(), &device).expect("it is whole");
    let predictor = Predictor::from_folder(&sealed.sample(), &device).expect("the sample is whole");
    let texts = [("房间很[MASK]净", None), ("服[MASK]不好", None)];
    let answers = bundle.predictor().expect("it has a head").predict(&texts).expect("two texts");
    assert_eq!(answers, predictor.predict(&texts).expect("two texts"));
    let vectors = |embedder: Embedder| embedder.embed(&texts).expect("two texts");
    let expected = vectors(predictor.embedder(Pooling::Mean, true).expect("it needs no pooler"));
    assert_eq!(vectors(bundle.embedder(Pooling::Mean, true).expect("it needs no pooler")), expected);
}

/// The sample checkpoint without its head.
#[test]
fn an_encoder_without_a_head_makes_vectors() {
    let sealed = Sealed::new(Precision::F32);
    let (encoder, out) = (sealed.folder.path().join("encoder"), sealed.folder.path().join("vectors"));
    fs::create_dir(&encoder).expect("a folder");
    for entry in fs::read_dir(sealed.sample()).expect("a folder") {
        let path = entry.expect("an entry").path();
        let bytes = fs::read(&path).expect("a file");
        let bytes = match path.ends_with("config.json") {
            true => String::from_utf8_lossy(&bytes).replace("BertForMaskedLM", "BertModel").into_bytes(),
            false => bytes,
        };
        fs::write(encoder.join(path.file_name().expect("a name")), bytes).expect("it is writable");
    }
    fs::write(encoder.join("modules.json"), r#"[{"type": "sentence_transformers.models.Normalize"}]"#).expect("small");
    fs::write(encoder.join("sentence_bert_config.json"), r#"{"max_seq_length": 6}"#).expect("small");
    fs::write(encoder.join("README.md"), "---\nlicense: mit\n---\n").expect("small");
    let device = Flex::device(0);
    let manifest = SealConfig::default().seal(&encoder, &out, &device).expect("it is whole");
    assert_eq!((manifest.task, manifest.vectors.normalize), (None, true));
    assert_eq!(manifest.base.license.as_deref(), Some("mit"));
    let bundle = Bundle::open(&out, &device).expect("it is whole");
    let Model::Encoder(embedder) = &bundle.model else { panic!("it has no head") };
    assert_eq!(embedder.tokenizer().max_length(), 6);
    let texts = [("房间很干净", None), ("服务不好", None), ("房间很干", None)];
    let vectors = embedder.embed(&texts).expect("three texts");
    assert_eq!(vectors[..embedder.width()], vectors[2 * embedder.width()..], "only four characters are read");
    let again = bundle.embedder(Pooling::Mean, true).expect("it needs no pooler").embed(&texts);
    assert_eq!(again.expect("the same"), vectors);
    assert!(bundle.predictor().is_none());
}

#[test]
fn every_difference_is_named() {
    let sealed = Sealed::new(Precision::F32);
    let weights = sealed.bundle().join("model.safetensors");
    let mut bytes = fs::read(&weights).expect("it is there");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    sealed.write("model.safetensors", &bytes);
    sealed.write("extra.txt", b"");
    fs::remove_file(sealed.bundle().join("tokenizer.json")).expect("it is there");
    let config = sealed.bundle().join("config.json");
    let longer = [fs::read(&config).expect("it is there"), b" ".to_vec()].concat();
    sealed.write("config.json", &longer);
    let expected = [
        ("config.json", DifferenceKind::Changed),
        ("extra.txt", DifferenceKind::Extra),
        ("model.safetensors", DifferenceKind::Changed),
        ("tokenizer.json", DifferenceKind::Missing),
    ];
    assert_eq!(sealed.differences(), expected.map(|(name, kind)| (name.to_owned(), kind)));
    let message = Bundle::open(&sealed.bundle(), &Flex::device(0)).expect_err("it was changed").to_string();
    assert!(
        message.contains("extra.txt is not in the manifest") && message.contains("tokenizer.json is missing"),
        "{message}"
    );
}

#[cfg(unix)]
#[test]
fn links_pipes_and_folders_are_no_files_of_a_bundle() {
    let sealed = Sealed::new(Precision::F32);
    let path = |name: &str| sealed.bundle().join(name);
    // A link to the same bytes as in the manifest.
    fs::rename(path("config.json"), sealed.folder.path().join("elsewhere.json")).expect("it is there");
    std::os::unix::fs::symlink("../elsewhere.json", path("config.json")).expect("a link");
    fs::remove_file(path("tokenizer.json")).expect("it is there");
    let made = std::process::Command::new("mkfifo").arg(path("tokenizer.json")).status().expect("mkfifo runs");
    assert!(made.success());
    fs::create_dir(path("folder")).expect("a folder");
    let expected = [
        ("config.json", DifferenceKind::Changed),
        ("folder", DifferenceKind::Extra),
        ("tokenizer.json", DifferenceKind::Changed),
    ];
    assert_eq!(sealed.differences(), expected.map(|(name, kind)| (name.to_owned(), kind)));

    fs::rename(path(MANIFEST), sealed.folder.path().join("manifest.json")).expect("it is there");
    std::os::unix::fs::symlink("../manifest.json", path(MANIFEST)).expect("a link");
    assert!(sealed.malformed().contains("it is a symbolic link"), "{}", sealed.malformed());
    fs::remove_file(path(MANIFEST)).expect("it is there");
    let made = std::process::Command::new("mkfifo").arg(path(MANIFEST)).status().expect("mkfifo runs");
    assert!(made.success());
    let error = verify(&sealed.bundle()).expect_err("no one writes");
    let cause = std::error::Error::source(&error).expect("it has one").to_string();
    assert!(cause.contains("it is a pipe (FIFO)"), "{cause}");
}

#[test]
fn malformed_manifests_are_refused() {
    let sealed = Sealed::new(Precision::F32);
    let good = serde_json::to_value(&sealed.manifest).expect("it is JSON");
    for (name, reason) in [
        ("../config.json", "plain name"),
        ("/etc/passwd", "plain name"),
        ("a/b", "plain name"),
        ("..", "plain name"),
        ("", "plain name"),
        (MANIFEST, "plain name"),
        ("C:x", "plain name"),
        ("a\u{0}b", "plain name"),
    ] {
        let mut manifest = good.clone();
        manifest["files"][name] = manifest["files"]["config.json"].clone();
        sealed.write(MANIFEST, manifest.to_string().as_bytes());
        let message = sealed.malformed();
        assert!(message.contains(reason) && message.contains(MANIFEST), "{name}: {message}");
    }
    for (key, value, reason) in [
        ("sha256", serde_json::json!("0".repeat(64)), "that of the list of files is"),
        ("precision", serde_json::json!("f8"), "unknown variant `f8`"),
        ("task", serde_json::json!("summarization"), "unknown variant `summarization`"),
        ("files", serde_json::json!(7), "invalid JSON"),
        ("kiln", serde_json::json!(null), "invalid JSON"),
    ] {
        let mut manifest = good.clone();
        manifest[key] = value;
        sealed.write(MANIFEST, manifest.to_string().as_bytes());
        let message = sealed.malformed();
        assert!(message.contains(reason), "{key}: {message}");
    }
    let mut manifest = good.clone();
    manifest["files"]["config.json"]["sha256"] = serde_json::json!("Z");
    sealed.write(MANIFEST, manifest.to_string().as_bytes());
    assert!(sealed.malformed().contains("expected 64 hexadecimal digits"), "{}", sealed.malformed());
    sealed.write(MANIFEST, &vec![b'['; 17 << 20]);
    assert!(sealed.malformed().contains("expected at most 16777216"), "{}", sealed.malformed());
    sealed.write(MANIFEST, &vec![b'['; 1 << 20]);
    assert!(sealed.malformed().contains("invalid JSON"), "{}", sealed.malformed());
    fs::remove_file(sealed.bundle().join(MANIFEST)).expect("it is there");
    assert!(sealed.malformed().contains("it is not a bundle"), "{}", sealed.malformed());
}

#[test]
fn what_is_there_is_not_overwritten_and_a_failure_leaves_nothing() {
    let sealed = Sealed::new(Precision::F32);
    let (device, config) = (Flex::device(0), SealConfig { precision: Precision::Bf16 });
    let before = fs::read(sealed.bundle().join(MANIFEST)).expect("it is there");
    let model = sealed.sample();
    config.seal(&model, &sealed.bundle(), &device).expect_err("a bundle is there");
    assert_eq!(fs::read(sealed.bundle().join(MANIFEST)).expect("it is there"), before);

    let out = tempfile::tempdir().expect("a temporary folder");
    let path = out.path().join("bundle");
    let message = config.seal(&sealed.bundle(), &path, &device).expect_err("a bundle of a bundle").to_string();
    assert!(message.contains("this is already a bundle"), "{message}");
    config.seal(&sealed.folder.path().join("absent"), &path, &device).expect_err("there is no model");
    drop(config.prepare(&model, &path, &device).expect("the sample is whole"));
    assert!(is_empty(out.path()), "what was not finished is gone");
}
