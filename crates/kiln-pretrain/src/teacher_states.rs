use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::PathBuf;

use burn::tensor::{Device, Tensor};
use kiln_bert::Bert;
use kiln_files::CacheFile;
use kiln_heads::inputs;
use kiln_tokenize::{Encoding, Tokenizer, by_length, lengths, pad};
use kiln_train::{F16, from_f16, to_f16};
use sha2::{Digest, Sha256};

use crate::alignment::{Speller, aligned};
use crate::components::Components;
use crate::{Error, TokenStore};

/// A teacher's hidden states for each token of a store. They are computed once, into a file that is read row by row.
///
/// The teacher tokenizes the text of a row with its own tokenizer. The state of a token is the mean of the teacher's
/// last-layer states over its tokens that share a character with that token. If the teacher is wider than the student, the
/// states are centred, projected to as many principal components as the student is wide, and scaled to a mean square of 1.
#[derive(Debug)]
pub struct TeacherStates {
    file: CacheFile,
    folder: PathBuf,
    /// The index of each row's first token over all rows, and the number of all tokens at the end.
    starts: Vec<usize>,
    width: usize,
}

/// A model whose hidden states a student learns.
#[derive(Clone, Copy, Debug)]
pub struct Teacher<'a> {
    /// The encoder.
    pub bert: &'a Bert,
    /// The tokenizer. Text beyond its maximum length has no state.
    pub tokenizer: &'a Tokenizer,
    /// A hash of the files of the encoder and the tokenizer.
    pub hash: &'a str,
}

/// Settings of [`TeacherStates::compute`].
#[derive(Clone, Debug)]
pub struct TeacherStatesConfig {
    /// Width of the student's hidden states, at most that of the teacher.
    pub width: usize,
    /// Number of rows in a batch.
    pub batch_size: usize,
    /// The cache folder, with a file for each teacher and store.
    pub folder: PathBuf,
    /// The largest size of a file, in bytes.
    pub max_bytes: u64,
}

/// Number of rows that the principal components are computed from.
const COMPONENT_ROWS: usize = 1_024;

/// Number of rows that are tokenized and sorted by length together.
const CHUNK: usize = 4_096;

impl TeacherStates {
    /// Runs a teacher over all rows of a store, or opens the file of an earlier run. A file with a wrong length is computed
    /// anew.
    ///
    /// `tokenizer` is the student's tokenizer, which made the tokens of the store. `progress` is called with the number of
    /// rows done. Returns the states, and whether they were already in the cache.
    ///
    /// # Errors
    /// When the student is wider than the teacher or has a byte-level tokenizer, when the file would be larger than the
    /// limit, or when it cannot be written.
    pub fn compute(
        teacher: Teacher<'_>,
        store: &TokenStore,
        tokenizer: &Tokenizer,
        config: &TeacherStatesConfig,
        device: &Device,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(Self, bool), Error> {
        let (width, teacher_width) = (config.width, teacher.bert.hidden_size());
        if width > teacher_width {
            return Err(Error::WiderStudent { student: width, teacher: teacher_width });
        }
        let speller = Speller::new(tokenizer)?;
        let mut starts = vec![0];
        for row in 0..store.rows() {
            starts.push(starts[row] + store.shape(row)?.1);
        }
        let bytes = (starts[store.rows()] * width * F16) as u64;
        if bytes > config.max_bytes {
            return Err(Error::TeacherStates { bytes, most: config.max_bytes });
        }
        let path = config.folder.join(format!("{}.states", key(teacher, store, config)?));
        let failed = |source| Error::Store { folder: config.folder.clone(), source };
        let (file, is_kept) = CacheFile::open_or_write(&path, bytes, failed, |file| {
            let reader = Reader { teacher, store, speller, device };
            let components = (width < teacher_width).then(|| reader.components(config)).transpose()?;
            for chunk in 0..store.rows().div_ceil(CHUNK) {
                let rows: Vec<usize> = (chunk * CHUNK..store.rows().min((chunk + 1) * CHUNK)).collect();
                let mut done = rows[0];
                reader.read(&rows, config.batch_size, &mut |row, states| {
                    let states = components.as_ref().map(|components| components.project(&states)).unwrap_or(states);
                    file.seek(SeekFrom::Start((starts[row] * width * F16) as u64)).map_err(failed)?;
                    file.write_all(&to_f16(&states)).map_err(failed)?;
                    done += 1;
                    if done.is_multiple_of(config.batch_size) || done == store.rows() {
                        progress(done);
                    }
                    Ok(())
                })?;
            }
            Ok(())
        })?;
        Ok((Self { file, folder: config.folder.clone(), starts, width }, is_kept))
    }

    /// The width of a state.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The states of a row's tokens, row-major `[tokens, width]`, with zeros for a token without a teacher state.
    ///
    /// # Errors
    /// When the file cannot be read.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn row(&self, row: usize) -> Result<Vec<f32>, Error> {
        let [start, end] = [row, row + 1].map(|row| self.starts[row] * self.width * F16);
        let read = self.file.read(start as u64, end - start);
        let bytes = read.map_err(|source| Error::Store { folder: self.folder.clone(), source })?;
        Ok(from_f16(&bytes).collect())
    }
}

/// Runs a teacher over rows of a store.
struct Reader<'a> {
    teacher: Teacher<'a>,
    store: &'a TokenStore,
    speller: Speller<'a>,
    device: &'a Device,
}

impl Reader<'_> {
    /// Calls `take` with each row and its tokens' states, row-major `[tokens, teacher's width]`. Rows come in any order.
    fn read(
        &self,
        rows: &[usize],
        batch_size: usize,
        take: &mut dyn FnMut(usize, Vec<f32>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (mut encodings, mut pieces) = (Vec::new(), Vec::new());
        for &row in rows {
            let (encoding, of_tokens) = self.encode(&self.store.row(row)?.tokens)?;
            encodings.push(encoding);
            pieces.push(of_tokens);
        }
        let width = self.teacher.bert.hidden_size();
        for batch in by_length(&lengths(&encodings), batch_size) {
            let padded = pad(&encodings, &batch, self.teacher.tokenizer.pad_token_id());
            let states = host(self.teacher.bert.forward(inputs(&padded, self.device)));
            for (states, &at) in states.chunks(padded.seq * width).zip(&batch) {
                let means =
                    pieces[at].iter().flat_map(|pieces| mean(&states[pieces.start * width..pieces.end * width], width));
                take(rows[at], means.collect())?;
            }
        }
        Ok(())
    }

    /// The teacher's encoding of the text of tokens, and the range of the teacher's tokens for each of them.
    fn encode(&self, tokens: &[u32]) -> Result<(Encoding, Vec<Range<usize>>), Error> {
        let tokenizer = self.teacher.tokenizer;
        let (text, spans) = self.speller.spell(tokens);
        let list = tokenizer.list(&text, None)?;
        let most = list.input_ids.len().min(tokenizer.max_length());
        // Special tokens have no characters.
        let pieces = aligned(&spans, &list.offsets[..most]);
        let encoding = Encoding {
            input_ids: list.input_ids[..most].to_vec(),
            token_type_ids: list.token_type_ids[..most].to_vec(),
            full_length: list.input_ids.len(),
            full_length_is_exact: true,
        };
        Ok((encoding, pieces))
    }

    /// Principal components of the states of rows that are spread over the store.
    fn components(&self, config: &TeacherStatesConfig) -> Result<Components, Error> {
        let count = self.store.rows().min(COMPONENT_ROWS);
        let rows: Vec<usize> = (0..count).map(|at| at * self.store.rows() / count).collect();
        let mut all = Vec::new();
        self.read(&rows, config.batch_size, &mut |_, states| {
            all.extend(states);
            Ok(())
        })?;
        Ok(Components::of(&all, self.teacher.bert.hidden_size(), config.width))
    }
}

/// The mean of states, row-major `[states, width]`; zeros if there are none.
fn mean(states: &[f32], width: usize) -> Vec<f32> {
    let mut mean = vec![0.0; width];
    let share = 1.0 / (states.len() / width).max(1) as f32;
    for state in states.chunks(width) {
        mean.iter_mut().zip(state).for_each(|(mean, value)| *mean += value * share);
    }
    mean
}

fn host(states: Tensor<3>) -> Vec<f32> {
    states.into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32")
}

/// A hash of everything that the states depend on: the teacher, its precision and maximum length, the width, and all tokens.
fn key(teacher: Teacher<'_>, store: &TokenStore, config: &TeacherStatesConfig) -> Result<String, Error> {
    let mut all = Sha256::new();
    let precision = teacher.bert.products.precision;
    all.update(format!("states 1 {} {precision:?} {} {}", teacher.hash, config.width, teacher.tokenizer.max_length()));
    for row in 0..store.rows() {
        let tokens = store.row(row)?.tokens;
        all.update((tokens.len() as u64).to_le_bytes());
        tokens.iter().for_each(|token| all.update(token.to_le_bytes()));
    }
    Ok(all.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use kiln_backend::{Backend, Flex};
    use kiln_bert::{BertConfig, LayerOutputs};
    use kiln_dataset::Passage;
    use kiln_heads::{MaskedLm, PreTrainingHeads};

    use super::*;
    use crate::TokenStoreConfig;

    fn tokenizer(name: &str) -> Tokenizer {
        let folder = format!(concat!(env!("CARGO_MANIFEST_DIR"), "/../kiln-tokenize/tests/{}"), name);
        Tokenizer::from_folder(folder.as_ref()).expect("the fixture is whole").with_max_length(16).expect("enough")
    }

    fn bert(hidden_size: usize, device: &Device) -> Bert {
        let config = BertConfig {
            vocab_size: 16,
            hidden_size,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 12,
            max_position_embeddings: 16,
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
            ..BertConfig::base()
        };
        config.init(device)
    }

    fn store(tokenizer: &Tokenizer) -> TokenStore {
        let texts = ["房间房", "clean 房间", "房间房间 cleaner"];
        let passages = texts.iter().flat_map(|text| [Ok(Passage::Sentence((*text).to_owned())), Ok(Passage::End)]);
        let config = TokenStoreConfig { folder: std::env::temp_dir(), max_tokens: 12 };
        config.build(passages, tokenizer).expect("the temporary folder is writable")
    }

    struct Place(tempfile::TempDir);

    impl Place {
        fn compute(&self, teacher: &Bert, width: usize, device: &Device) -> Result<(TeacherStates, bool), Error> {
            let ours = tokenizer("tiny");
            let theirs = tokenizer("tiny-unigram");
            let teacher = Teacher { bert: teacher, tokenizer: &theirs, hash: "a" };
            let folder = self.0.path().join("states");
            let config = TeacherStatesConfig { width, batch_size: 2, folder, max_bytes: 1_000 };
            TeacherStates::compute(teacher, &store(&ours), &ours, &config, device, &mut |_| {})
        }
    }

    #[test]
    fn a_token_has_the_mean_of_the_pieces_that_it_shares_characters_with() {
        let device = Flex::find_device(0).expect("it is built in");
        let (place, teacher) = (Place(tempfile::tempdir().expect("a temporary folder")), bert(8, &device));
        let (states, was_there) = place.compute(&teacher, 8, &device).expect("it is small");
        assert!(!was_there);
        // The teacher reads 房间 as one token.
        let list = tokenizer("tiny-unigram").list("房间房", None).expect("there is an unknown token");
        let encoding = Encoding {
            token_type_ids: vec![0; list.input_ids.len()],
            full_length: list.input_ids.len(),
            full_length_is_exact: true,
            input_ids: list.input_ids.clone(),
        };
        let batch = pad(&[encoding], &[0], 1);
        let expected = host(teacher.forward(inputs(&batch, &device)));
        let of_piece = |piece: usize| &expected[piece * 8..][..8];
        let found = states.row(0).expect("it is there");
        let near = |found: &[f32], expected: &[f32]| found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 2e-3);
        let piece_of = |character: usize| {
            list.offsets.iter().position(|[start, end]| (*start..*end).contains(&character)).expect("it is read")
        };
        for (token, character) in [(0, 0), (1, 1), (2, 2)] {
            assert!(near(&found[token * 8..], of_piece(piece_of(character))), "token {token} of {:?}", list.tokens);
        }
        assert_eq!(found.len(), 3 * 8);

        let (again, was_there) = place.compute(&teacher, 8, &device).expect("it is small");
        assert!(was_there && again.row(2).expect("it is there") == states.row(2).expect("it is there"));
    }

    #[test]
    fn a_narrower_student_is_given_principal_components() {
        let device = Flex::find_device(0).expect("it is built in");
        let (place, teacher) = (Place(tempfile::tempdir().expect("a temporary folder")), bert(8, &device));
        let (states, _) = place.compute(&teacher, 4, &device).expect("it is small");
        let all: Vec<f32> = (0..3).flat_map(|row| states.row(row).expect("it is there")).collect();
        let square = all.iter().map(|value| value * value).sum::<f32>() / all.len() as f32;
        assert!((square - 1.0).abs() < 1e-2, "{square}");
        let error = |result: Result<_, Error>| result.expect_err("it is refused").to_string();
        assert!(error(place.compute(&teacher, 10, &device)).contains("size is 10, expected at most"));
        let wide = bert(128, &device);
        assert!(error(place.compute(&wide, 128, &device)).contains("bytes on disk, expected at most 1000"));
    }

    #[test]
    fn the_loss_is_a_mean_over_the_tokens_with_a_state() {
        let device = Flex::find_device(0).expect("it is built in");
        let (place, teacher) = (Place(tempfile::tempdir().expect("a temporary folder")), bert(8, &device));
        let (states, _) = place.compute(&teacher, 8, &device).expect("it is small");
        let mut student = bert(8, &device);
        student.layer_outputs = Some(LayerOutputs::of_every_pass());
        let cls =
            PreTrainingHeads::new(&BertConfig { vocab_size: 16, hidden_size: 8, ..BertConfig::base() }, false, &device);
        let model = MaskedLm { bert: student, cls };
        let tokenizer = tokenizer("tiny");
        let store = store(&tokenizer);
        let encodings: Vec<Encoding> = [1, 2]
            .map(|row| store.row(row).and_then(|row| Ok(tokenizer.assemble(&row.tokens, None)?.0)).expect("it is read"))
            .into();
        let batch = pad(&encodings, &[0, 1], 0);
        let ours = host(model.bert.forward(inputs(&batch, &device)));
        let (mut sum, mut count) = (0.0, 0);
        for (at, row) in [1, 2].into_iter().enumerate() {
            let theirs = states.row(row).expect("it is there");
            let ours = &ours[(at * batch.seq + 1) * 8..][..theirs.len()];
            sum += ours.iter().zip(&theirs).map(|(a, b)| (a - b) * (a - b)).sum::<f32>() / 8.0;
            count += theirs.len() / 8;
        }
        let loss: f32 = states.loss(&model, &[(1, 1), (2, 1)], &device).into_scalar();
        assert!((loss - sum / count as f32).abs() < 1e-5, "{loss} and {sum} of {count}");
    }
}
