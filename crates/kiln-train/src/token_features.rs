use std::collections::HashMap;
use std::io::{self, Seek, SeekFrom, Write};

use burn::tensor::{Device, Int, Tensor, TensorData};
use kiln_bert::{Bert, Inputs, KnownStates};
use kiln_files::{CacheFile, FileWriter};
use kiln_heads::inputs;
use kiln_tokenize::{Encoding, by_length, pad};
use sha2::{Digest, Sha256};

use crate::{Error, FeatureCache};

/// Cached hidden states of a frozen encoder, for every token of some rows. They are stored in a file that is read batch by
/// batch, so that memory use does not grow with its size. They replace the encoder as [`Bert::known_states`].
#[derive(Debug)]
pub struct TokenFeatures {
    file: CacheFile,
    /// The position of the first token of each row in the file, by the row's token ids and token types.
    rows: HashMap<Row, u64>,
    hidden: usize,
}

/// The id and token type of each token.
type Row = Vec<(u32, u32)>;

/// How hidden states are cached.
#[derive(Clone, Debug)]
pub struct TokenFeaturesConfig {
    /// Rows per batch.
    pub batch_size: usize,
    /// The cache folder, and the hash of the encoder's weights.
    pub cache: FeatureCache,
    /// The maximum size of a file in bytes. Nothing is cached if the rows need more.
    pub max_bytes: u64,
}

const FLOAT: u64 = size_of::<f32>() as u64;

impl TokenFeatures {
    /// Opens the file of an earlier run or, if there is none, runs the encoder over all rows. Also returns whether the file
    /// existed. Returns none if the file would be larger than the limit. `progress` is called after each batch with the
    /// number of processed rows.
    ///
    /// # Errors
    /// When the cache folder cannot be written. A file with another length is computed again.
    pub fn compute(
        bert: &Bert,
        encodings: &[&Encoding],
        config: &TokenFeaturesConfig,
        device: &Device,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Option<(Self, bool)>, Error> {
        let mut rows = HashMap::new();
        let (mut unique, mut tokens) = (Vec::<Encoding>::new(), 0);
        for encoding in encodings {
            rows.entry(row(encoding)).or_insert_with(|| {
                let first = tokens;
                tokens += encoding.input_ids.len() as u64;
                unique.push((*encoding).clone());
                first
            });
        }
        let hidden = bert.hidden_size();
        let bytes = tokens * hidden as u64 * FLOAT;
        if bytes > config.max_bytes {
            return Ok(None);
        }
        let path = config.cache.folder.join(format!("{}.tokens", key(&config.cache, bert, &unique)));
        let failed = |source| kiln_bert::Error::Write { path: path.clone(), source };
        let writer = Writer { bert, rows: &rows, hidden, device };
        let (file, is_kept) = CacheFile::open_or_write(&path, bytes, failed, |file| {
            writer.write(file, &unique, config.batch_size, progress).map_err(failed)
        })?;
        Ok(Some((Self { file, rows, hidden }, is_kept)))
    }

    /// Reads the hidden states of a row, which begin at token `first` of the file.
    fn read(&self, first: u64, tokens: usize, values: &mut [f32]) -> io::Result<()> {
        let bytes = self.file.read(first * self.hidden as u64 * FLOAT, tokens * self.hidden * size_of::<f32>())?;
        for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
            *value = f32::from_le_bytes(*bytes);
        }
        Ok(())
    }
}

impl KnownStates for TokenFeatures {
    fn get(&self, inputs: &Inputs) -> Option<Tensor<3>> {
        let [batch, seq] = inputs.input_ids.dims();
        let host = |ids: &Tensor<2, Int>| -> Vec<i64> { ids.clone().into_data().iter::<i64>().collect() };
        let (ids, types, mask) = (host(&inputs.input_ids), host(&inputs.token_type_ids), host(&inputs.attention_mask));
        let mut values = vec![0.0; batch * seq * self.hidden];
        for (at, values) in values.chunks_mut((seq * self.hidden).max(1)).enumerate() {
            let cells = at * seq..(at + 1) * seq;
            let row: Row =
                cells.filter(|&cell| mask[cell] == 1).map(|cell| (ids[cell] as u32, types[cell] as u32)).collect();
            let first = *self.rows.get(&row)?;
            // If the file was truncated after it was opened, the encoder computes the states.
            self.read(first, row.len(), values).ok()?;
        }
        let values = TensorData::new(values, [batch, seq, self.hidden]);
        Some(Tensor::from_data(values, &inputs.input_ids.device()))
    }
}

struct Writer<'a> {
    bert: &'a Bert,
    rows: &'a HashMap<Row, u64>,
    hidden: usize,
    device: &'a Device,
}

impl Writer<'_> {
    fn write(
        &self,
        file: &mut FileWriter,
        encodings: &[Encoding],
        batch_size: usize,
        progress: &mut dyn FnMut(usize),
    ) -> io::Result<()> {
        let mut done = 0;
        for batch in by_length(&kiln_tokenize::lengths(encodings), batch_size) {
            let padded = pad(encodings, &batch, 0);
            let states = self.bert.forward(inputs(&padded, self.device));
            let states = states.into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32");
            for (states, &at) in states.chunks(padded.seq * self.hidden).zip(&batch) {
                let encoding = &encodings[at];
                let first = self.rows[&row(encoding)];
                let values = &states[..encoding.input_ids.len() * self.hidden];
                file.seek(SeekFrom::Start(first * self.hidden as u64 * FLOAT))?;
                file.write_all(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
            }
            done += batch.len();
            progress(done);
        }
        Ok(())
    }
}

fn row(encoding: &Encoding) -> Row {
    encoding.input_ids.iter().copied().zip(encoding.token_type_ids.iter().copied()).collect()
}

/// A hash of everything that hidden states depend on: the encoder, its precision, and all tokens of all rows.
fn key(cache: &FeatureCache, bert: &Bert, encodings: &[Encoding]) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("tokens 1 {} {:?}", cache.encoder_hash, bert.products.precision));
    for encoding in encodings {
        hash.update((encoding.input_ids.len() as u64).to_le_bytes());
        for (id, segment) in row(encoding) {
            hash.update(id.to_le_bytes());
            hash.update(segment.to_le_bytes());
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
