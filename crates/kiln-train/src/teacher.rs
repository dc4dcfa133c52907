use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;

use burn::tensor::{Device, Int, Tensor, TensorData};
use kiln_bert::Bert;
use kiln_files::{CacheFile, FileWriter};
use kiln_tokenize::by_length;
use sha2::{Digest, Sha256};

use crate::half_precision::{F16, from_f16, to_f16};
use crate::{EncoderModel, Error, LogitSet, Matching};

/// A teacher's outputs for the rows of a training set: logits and, if layers are compared, hidden states or values. They are
/// computed once and stored in a file that is read batch by batch, so that memory use does not grow with its size.
#[derive(Debug)]
pub struct TeacherOutputs {
    file: CacheFile,
    layouts: Vec<Layout>,
    matching: Option<Matching>,
    hidden: usize,
}

/// How a teacher's outputs are computed.
#[derive(Clone, Debug)]
pub struct TeacherConfig {
    /// Rows per batch.
    pub batch_size: usize,
    /// The folder, with one file for each combination of teacher and training set.
    pub folder: PathBuf,
    /// A hash of the teacher's files.
    pub hash: String,
    /// For each label of the set, the index of the teacher's logit. `None`: the order of the labels is the same.
    pub columns: Option<Vec<usize>>,
    /// Which layers are compared. `None`: only logits are compared.
    pub matching: Option<Matching>,
    /// The maximum size of the file in bytes.
    pub max_bytes: u64,
}

/// The position and layout of a row in a file: the logits in f32, row-major, then each compared tensor in f16.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// The offset of its first byte.
    start: u64,
    logits: [usize; 2],
    tokens: usize,
}

/// A teacher's outputs for a batch.
pub(crate) struct Lesson {
    /// In the shape of [`LogitSet::logits`].
    pub logits: Tensor<2>,
    /// The compared tensors of the layers, `[batch, seq, hidden]` each. The values of padding are undefined.
    pub states: Vec<Tensor<3>>,
}

/// The padding after the logits of a row: finite, but its softmax is 0.
const NEVER: f32 = -1e4;

impl TeacherOutputs {
    /// Opens the file of an earlier run or, if there is none, runs the teacher over all rows. Also returns whether the file
    /// existed. `progress` is called after each batch with the number of processed rows.
    ///
    /// # Errors
    /// When the file would be larger than the limit, or cannot be written. A file with another length is computed again.
    ///
    /// # Panics
    /// When layers are compared and the teacher's encoder does not store the layer outputs of every forward pass.
    pub fn compute<S: LogitSet>(
        teacher: &S::Model,
        set: &S,
        config: &TeacherConfig,
        device: &Device,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(Self, bool), Error> {
        let bert = teacher.bert();
        let hidden = bert.hidden_size();
        let tensors = config.matching.as_ref().map_or(0, Matching::tensors);
        let mut layouts = Vec::with_capacity(set.rows());
        let mut bytes = 0;
        for (row, &tokens) in set.lengths(0..set.rows()).iter().enumerate() {
            let layout = Layout { start: bytes, logits: set.logits_shape(row), tokens };
            bytes += layout.bytes(tensors * hidden);
            layouts.push(layout);
        }
        if bytes > config.max_bytes {
            return Err(Error::TeacherOutputs { bytes, most: config.max_bytes });
        }
        let path = config.folder.join(format!("{}.teacher", key(set, bert, config)));
        let failed = |source| kiln_bert::Error::Write { path: path.clone(), source };
        let writer = Writer { teacher, set, bert, config, layouts: &layouts };
        let (file, is_kept) = CacheFile::open_or_write(&path, bytes, failed, |file| {
            writer.write(file, device, progress).map_err(failed)
        })?;
        Ok((Self { file, layouts, matching: config.matching.clone(), hidden }, is_kept))
    }

    /// Which layers are compared.
    pub(crate) fn matching(&self) -> Option<&Matching> {
        self.matching.as_ref()
    }

    /// The outputs for the given rows.
    ///
    /// # Panics
    /// When the file was truncated after it was opened.
    pub(crate) fn lesson(&self, rows: &[usize], device: &Device) -> Lesson {
        let tensors = self.matching.as_ref().map_or(0, Matching::tensors);
        let layouts: Vec<Layout> = rows.iter().map(|&row| self.layouts[row]).collect();
        let width = layouts.iter().map(|layout| layout.logits[1]).max().unwrap_or(0);
        let seq = layouts.iter().map(|layout| layout.tokens).max().unwrap_or(0);
        let mut logits = Vec::new();
        let mut states = vec![vec![0.0; rows.len() * seq * self.hidden]; tensors];
        for (at, layout) in layouts.iter().enumerate() {
            let bytes = layout.bytes(tensors * self.hidden) as usize;
            let bytes = self.file.read(layout.start, bytes).expect("the file has been whole before");
            let (of_logits, of_states) = bytes.split_at(layout.logit_bytes());
            let numbers: Vec<f32> = of_logits.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            for row in numbers.chunks(layout.logits[1].max(1)) {
                logits.extend_from_slice(row);
                logits.resize(logits.len() + width - row.len(), NEVER);
            }
            let numbers = layout.tokens * self.hidden;
            for (states, bytes) in states.iter_mut().zip(of_states.chunks(numbers * F16)) {
                let row = &mut states[at * seq * self.hidden..][..numbers];
                row.iter_mut().zip(from_f16(bytes)).for_each(|(number, state)| *number = state);
            }
        }
        let shape = [logits.len() / width.max(1), width];
        let of_layer = |states| Tensor::from_data(TensorData::new(states, [rows.len(), seq, self.hidden]), device);
        Lesson {
            logits: Tensor::from_data(TensorData::new(logits, shape), device),
            states: states.into_iter().map(of_layer).collect(),
        }
    }
}

impl Layout {
    fn logit_bytes(&self) -> usize {
        self.logits[0] * self.logits[1] * size_of::<f32>()
    }

    /// The size of a row in the file, with `numbers` compared numbers per token.
    fn bytes(&self, numbers: usize) -> u64 {
        (self.logit_bytes() + self.tokens * numbers * F16) as u64
    }
}

struct Writer<'a, S: LogitSet> {
    teacher: &'a S::Model,
    set: &'a S,
    bert: &'a Bert,
    config: &'a TeacherConfig,
    layouts: &'a [Layout],
}

impl<S: LogitSet> Writer<'_, S> {
    fn write(&self, file: &mut FileWriter, device: &Device, progress: &mut dyn FnMut(usize)) -> io::Result<()> {
        let mut done = 0;
        for rows in by_length(&self.set.lengths(0..self.set.rows()), self.config.batch_size) {
            for (at, bytes) in self.outputs(&rows, device).into_iter().enumerate() {
                file.seek(SeekFrom::Start(self.layouts[rows[at]].start))?;
                file.write_all(&bytes)?;
            }
            done += rows.len();
            progress(done);
        }
        Ok(())
    }

    /// The bytes of each of the given rows in the file.
    fn outputs(&self, rows: &[usize], device: &Device) -> Vec<Vec<u8>> {
        let mut logits = self.set.logits(self.teacher, rows, device);
        if let Some(columns) = &self.config.columns {
            let columns: Vec<i32> = columns.iter().map(|&column| column as i32).collect();
            let count = columns.len();
            logits = logits.select(1, Tensor::<1, Int>::from_data(TensorData::new(columns, [count]), device));
        }
        let states = self.config.matching.as_ref().map_or_else(Vec::new, |matching| {
            let kept = self.bert.layer_outputs.as_ref().expect("a teacher that is matched keeps its layers' outputs");
            matching.of_teacher(self.bert, &kept.take())
        });
        let [_, width] = logits.dims();
        let logits = host(logits.into_data());
        let states: Vec<(usize, Vec<f32>)> = states.into_iter().map(of_row).collect();
        let mut remaining = logits.chunks(width.max(1));
        let bytes_of = |(at, &row): (usize, &usize)| {
            let Layout { logits: [count, width], tokens, .. } = self.layouts[row];
            let mut bytes = Vec::new();
            for logits in remaining.by_ref().take(count) {
                bytes.extend(logits[..width].iter().flat_map(|logit| logit.to_le_bytes()));
            }
            for (numbers, states) in &states {
                // `numbers` is the count for a row including its padding.
                let hidden = self.bert.hidden_size();
                let states = &states[at * numbers..][..tokens * hidden];
                bytes.extend(to_f16(states));
            }
            bytes
        };
        rows.iter().enumerate().map(bytes_of).collect()
    }
}

/// How many numbers each row has, and the numbers of all rows.
fn of_row(states: Tensor<3>) -> (usize, Vec<f32>) {
    let [_, seq, hidden] = states.dims();
    (seq * hidden, host(states.into_data()))
}

fn host(data: TensorData) -> Vec<f32> {
    data.convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32")
}

/// A hash of everything that the outputs depend on: the teacher, its precision, the stored outputs, and all tokens.
fn key<S: LogitSet>(set: &S, bert: &Bert, config: &TeacherConfig) -> String {
    let TeacherConfig { hash, columns, matching, .. } = config;
    let mut all = Sha256::new();
    all.update(format!("teacher 1 {hash} {:?} {columns:?} {matching:?}", bert.products.precision));
    for (row, encoding) in set.encodings().iter().enumerate() {
        all.update((encoding.input_ids.len() as u64).to_le_bytes());
        for (id, segment) in encoding.input_ids.iter().zip(&encoding.token_type_ids) {
            all.update(id.to_le_bytes());
            all.update(segment.to_le_bytes());
        }
        let numbers = set.logits_shape(row).into_iter().chain(set.logit_tokens(row));
        numbers.for_each(|number| all.update((number as u64).to_le_bytes()));
    }
    all.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
