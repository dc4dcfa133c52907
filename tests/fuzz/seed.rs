//! Seeds: small, valid inputs in memory.

use std::io;
use std::path::Path;
use std::process::Command;

use crate::mutate::{Mutant, Special};

/// The files of an input.
#[derive(Clone, Debug)]
pub struct Seed {
    pub name: &'static str,
    pub files: Vec<SeedFile>,
    /// Whether the reader accepts pipes. Reading a pipe without a writer would never end.
    pub piped: bool,
}

/// A file of a seed.
#[derive(Clone, Debug)]
pub struct SeedFile {
    /// The path, relative to the input's folder.
    pub path: String,
    pub bytes: Vec<u8>,
    /// Whether cases may change the file.
    pub mutable: bool,
}

impl Seed {
    pub fn new(name: &'static str) -> Self {
        Self { name, files: Vec::new(), piped: false }
    }

    /// Marks the seed as one whose files may be pipes.
    pub fn piped(self) -> Self {
        Self { piped: true, ..self }
    }

    /// Adds a file that cases may change.
    pub fn with(self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        self.file(path, bytes, true)
    }

    /// Adds a file that no case changes.
    pub fn beside(self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        self.file(path, bytes, false)
    }

    fn file(mut self, path: impl Into<String>, bytes: impl Into<Vec<u8>>, mutable: bool) -> Self {
        self.files.push(SeedFile { path: path.into(), bytes: bytes.into(), mutable });
        self
    }

    /// Adds all files of another seed in a subfolder. No case changes them.
    pub fn beside_folder(mut self, folder: &str, other: &Self) -> Self {
        for file in &other.files {
            self = self.beside(format!("{folder}/{}", file.path), file.bytes.clone());
        }
        self
    }

    /// Size of all files in bytes, with the mutant's file if there is one.
    pub fn len(&self, mutant: Option<&Mutant>) -> usize {
        let of_file = |file: &SeedFile| match mutant {
            Some(mutant) if mutant.path == file.path => mutant.last().bytes.len(),
            _ => file.bytes.len(),
        };
        self.files.iter().map(of_file).sum()
    }

    /// Writes the files into an empty folder, with the mutant's file if there is one.
    pub fn write(&self, folder: &Path, mutant: Option<&Mutant>) -> io::Result<()> {
        if folder.exists() {
            std::fs::remove_dir_all(folder)?;
        }
        std::fs::create_dir_all(folder)?;
        for file in &self.files {
            let path = folder.join(&file.path);
            std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
            match mutant.filter(|mutant| mutant.path == file.path).map(Mutant::last) {
                None => std::fs::write(path, &file.bytes)?,
                Some(change) => match change.special {
                    None => std::fs::write(path, &change.bytes)?,
                    Some(special) => make_special(&path, special)?,
                },
            }
        }
        Ok(())
    }
}

/// Makes a special file. On a system without such files, nothing is made.
fn make_special(path: &Path, special: Special) -> io::Result<()> {
    match special {
        Special::Folder => std::fs::create_dir(path),
        Special::Fifo => {
            let _ = Command::new("mkfifo").arg(path).status();
            Ok(())
        }
        #[cfg(unix)]
        Special::DanglingLink => std::os::unix::fs::symlink("absent", path),
        #[cfg(not(unix))]
        Special::DanglingLink => Ok(()),
    }
}
