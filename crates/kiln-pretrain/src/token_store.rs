use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use kiln_dataset::Passage;
use kiln_tokenize::Tokenizer;

use crate::Error;

/// A tokenized corpus on disk, so that memory does not grow with the corpus.
///
/// Consecutive sentences of a document are packed into rows. The files are unnamed and temporary: they disappear when the
/// process ends. All numbers are little-endian.
#[derive(Debug)]
pub struct TokenStore {
    folder: PathBuf,
    /// The ids of all tokens, as u32.
    tokens: File,
    /// The index of each sentence's first token, and the end of the last sentence, as u64.
    sentences: File,
    /// For each row: its first sentence, the end of its sentences, its document and its number of tokens, as u64.
    rows: File,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    tokens: u64,
    sentences: u64,
    rows: u64,
    documents: u64,
}

/// Settings of a [`TokenStore`].
#[derive(Clone, Debug)]
pub struct TokenStoreConfig {
    /// The folder of the unnamed files.
    pub folder: PathBuf,
    /// Most tokens of a row, without special tokens. Sentences longer than half of it are split, so that two fit into a row.
    pub max_tokens: usize,
}

/// A row of a [`TokenStore`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// The index of the row's document.
    pub document: u64,
    /// The ids, without special tokens.
    pub tokens: Vec<u32>,
    /// The index of each sentence's first token in `tokens`; the first is 0.
    pub starts: Vec<usize>,
}

/// Number of passages that are tokenized together, by all threads.
const CHUNK: usize = 8192;

/// Number of u64 values in a row's record.
const RECORD: usize = 4;

impl TokenStoreConfig {
    /// Tokenizes a corpus and writes it to a store.
    ///
    /// # Errors
    /// When a passage cannot be read or tokenized, or the store cannot be written.
    pub fn build(
        &self,
        passages: impl IntoIterator<Item = Result<Passage, kiln_dataset::Error>>,
        tokenizer: &Tokenizer,
    ) -> Result<TokenStore, Error> {
        let cannot = |source| Error::Store { folder: self.folder.clone(), source };
        let mut writer = StoreWriter::new(self).map_err(cannot)?;
        let mut passages = passages.into_iter();
        loop {
            let chunk: Vec<Passage> = passages.by_ref().take(CHUNK).collect::<Result<_, _>>()?;
            if chunk.is_empty() {
                break;
            }
            let texts: Vec<&str> = chunk
                .iter()
                .map(|passage| match passage {
                    Passage::Sentence(text) => text.as_str(),
                    Passage::End => "",
                })
                .collect();
            let pieces = tokenizer.pieces(&texts)?;
            for (passage, pieces) in chunk.iter().zip(pieces) {
                match passage {
                    Passage::Sentence(_) => writer.sentence(&pieces),
                    Passage::End => writer.end_document(),
                }
                .map_err(cannot)?;
            }
        }
        writer.finish().map_err(cannot)
    }
}

struct StoreWriter {
    config: TokenStoreConfig,
    tokens: BufWriter<File>,
    sentences: BufWriter<File>,
    rows: BufWriter<File>,
    counts: Counts,
    /// The first sentence of the current row.
    first_sentence: u64,
    /// Number of tokens in the current row.
    row_tokens: usize,
}

impl StoreWriter {
    fn new(config: &TokenStoreConfig) -> io::Result<Self> {
        let file = || tempfile::tempfile_in(&config.folder).map(BufWriter::new);
        Ok(Self {
            tokens: file()?,
            sentences: file()?,
            rows: file()?,
            counts: Counts::default(),
            first_sentence: 0,
            row_tokens: 0,
            config: config.clone(),
        })
    }

    fn sentence(&mut self, pieces: &[u32]) -> io::Result<()> {
        for part in pieces.chunks((self.config.max_tokens / 2).max(1)) {
            if self.row_tokens + part.len() > self.config.max_tokens {
                self.end_row()?;
            }
            self.sentences.write_all(&self.counts.tokens.to_le_bytes())?;
            part.iter().try_for_each(|token| self.tokens.write_all(&token.to_le_bytes()))?;
            self.counts.sentences += 1;
            self.counts.tokens += part.len() as u64;
            self.row_tokens += part.len();
        }
        Ok(())
    }

    fn end_document(&mut self) -> io::Result<()> {
        self.end_row()?;
        self.counts.documents += 1;
        Ok(())
    }

    /// Ends a row. A row with a single token is dropped, because it has no context to predict the token from.
    fn end_row(&mut self) -> io::Result<()> {
        if self.row_tokens > 1 {
            let Counts { sentences, documents, .. } = self.counts;
            let record = [self.first_sentence, sentences, documents, self.row_tokens as u64];
            record.iter().try_for_each(|number| self.rows.write_all(&number.to_le_bytes()))?;
            self.counts.rows += 1;
        }
        self.first_sentence = self.counts.sentences;
        self.row_tokens = 0;
        Ok(())
    }

    fn finish(mut self) -> io::Result<TokenStore> {
        self.end_row()?;
        self.sentences.write_all(&self.counts.tokens.to_le_bytes())?;
        let whole = |writer: BufWriter<File>| writer.into_inner().map_err(io::IntoInnerError::into_error);
        Ok(TokenStore {
            folder: self.config.folder,
            tokens: whole(self.tokens)?,
            sentences: whole(self.sentences)?,
            rows: whole(self.rows)?,
            counts: self.counts,
        })
    }
}

impl TokenStore {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.counts.rows as usize
    }

    /// Number of documents.
    pub fn documents(&self) -> u64 {
        self.counts.documents
    }

    /// Number of tokens, without special tokens.
    pub fn tokens(&self) -> u64 {
        self.counts.tokens
    }

    /// The document of a row and its number of tokens, without reading the tokens.
    ///
    /// # Errors
    /// When the store cannot be read.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn shape(&self, row: usize) -> Result<(u64, usize), Error> {
        let [_, _, document, tokens] = self.record(row)?;
        Ok((document, tokens as usize))
    }

    /// Reads a row.
    ///
    /// # Errors
    /// When the store cannot be read.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, row: usize) -> Result<TokenRow, Error> {
        let [first, end, document, tokens] = self.record(row)?;
        let cannot = |source| Error::Store { folder: self.folder.clone(), source };
        let starts = read_u64s(&self.sentences, first, (end - first) as usize).map_err(cannot)?;
        let start = starts[0];
        let ids = read_u32s(&self.tokens, start, tokens as usize).map_err(cannot)?;
        let starts = starts.into_iter().map(|at| (at - start) as usize).collect();
        Ok(TokenRow { document, tokens: ids, starts })
    }

    fn record(&self, row: usize) -> Result<[u64; RECORD], Error> {
        assert!(row < self.rows(), "row {row} of {}", self.rows());
        let record = read_u64s(&self.rows, (row * RECORD) as u64, RECORD)
            .map_err(|source| Error::Store { folder: self.folder.clone(), source })?;
        Ok(record.try_into().expect("as many numbers were read"))
    }
}

/// Reads `count` numbers, the first at index `from`.
fn read_u64s(file: &File, from: u64, count: usize) -> io::Result<Vec<u64>> {
    let bytes = read_at(file, from * 8, count * 8)?;
    Ok(bytes.as_chunks().0.iter().map(|&bytes| u64::from_le_bytes(bytes)).collect())
}

/// Reads `count` numbers, the first at index `from`.
fn read_u32s(file: &File, from: u64, count: usize) -> io::Result<Vec<u32>> {
    let bytes = read_at(file, from * 4, count * 4)?;
    Ok(bytes.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect())
}

fn read_at(mut file: &File, place: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.seek(SeekFrom::Start(place))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(max_tokens: usize, documents: &[&[&str]]) -> TokenStore {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../kiln-tokenize/tests/tiny");
        let tokenizer = Tokenizer::from_folder(folder.as_ref()).expect("the fixture is whole");
        let passages = documents.iter().flat_map(|sentences| {
            let sentences = sentences.iter().map(|text| Ok(Passage::Sentence((*text).to_owned())));
            sentences.chain([Ok(Passage::End)])
        });
        let config = TokenStoreConfig { folder: std::env::temp_dir(), max_tokens };
        config.build(passages, &tokenizer).expect("the temporary folder is writable")
    }

    #[test]
    fn rows_are_neighbouring_sentences_of_one_document() {
        let store = store(6, &[&["房间", "房房房", "间", "间间"], &["房"], &["间间间间间间间"]]);
        assert_eq!((store.rows(), store.documents(), store.tokens()), (3, 3, 16));
        let read = |row| store.row(row).expect("it can be read");
        assert_eq!(read(0), TokenRow { document: 0, tokens: vec![5, 6, 5, 5, 5, 6], starts: vec![0, 2, 5] });
        assert_eq!(read(1), TokenRow { document: 0, tokens: vec![6, 6], starts: vec![0] });
        assert_eq!(
            read(2),
            TokenRow { document: 2, tokens: vec![6; 6], starts: vec![0, 3] },
            "one token, left over or alone, is no row"
        );
        assert_eq!(store.shape(2).expect("it can be read"), (2, 6));
    }

    #[test]
    fn numbers_are_little_endian() {
        let store = store(6, &[&["房间", "房"]]);
        let bytes = |file: &File, length| read_at(file, 0, length).expect("it can be read");
        assert_eq!(bytes(&store.tokens, 12), [5, 0, 0, 0, 6, 0, 0, 0, 5, 0, 0, 0]);
        assert_eq!(bytes(&store.sentences, 16), [0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        let record = [0u8, 2, 0, 3].map(|number| [number, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes(&store.rows, 32), record.concat());
    }

    #[test]
    fn a_corpus_of_nothing_has_no_rows() {
        let store = store(6, &[]);
        assert_eq!((store.rows(), store.documents(), store.tokens()), (0, 0, 0));
    }
}
