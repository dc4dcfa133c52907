//! Tags the units of texts, which are divided into windows.

use burn::tensor::{Device, Int, Tensor, TensorData};
use kiln_metrics::{argmax, softmax};
use kiln_schema::LabelId;
use kiln_tokenize::{Batch, Encoding, UnitWindow, by_length, pad};

use crate::{TokenClassifier, inputs};

/// The predicted tags of some texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Tags {
    /// The tag of each unit of each text.
    pub tags: Vec<Vec<LabelId>>,
    /// The probability of each tag, by the softmax of the unit's logits.
    pub scores: Vec<Vec<f64>>,
    /// The logits, row-major `[units, num_labels]` for each text.
    pub logits: Vec<Vec<f32>>,
}

/// The first tokens of the units that the windows of a batch own, as `row · seq + position`.
pub fn unit_tokens<'a>(batch: &Batch, window: impl Fn(usize) -> &'a UnitWindow) -> Vec<i32> {
    let of_row = |(at, row): (usize, &usize)| {
        let UnitWindow { units, own, .. } = window(*row);
        let tokens = units.iter().filter(|(unit, _)| own.contains(unit));
        tokens.map(move |(_, token)| (at * batch.seq + token) as i32).collect::<Vec<_>>()
    };
    batch.rows.iter().enumerate().flat_map(of_row).collect()
}

/// Tags texts that are divided into windows. The logits of a unit are those of the window that owns it. A CRF decodes the
/// tags of a whole text, over all its windows. Without a CRF, each unit has the tag with the highest logit.
pub fn tag(
    model: &TokenClassifier,
    texts: &[Vec<UnitWindow>],
    pad_token_id: u32,
    batch_size: usize,
    device: &Device,
) -> Tags {
    let windows: Vec<(usize, &UnitWindow)> =
        texts.iter().enumerate().flat_map(|(text, windows)| windows.iter().map(move |window| (text, window))).collect();
    let encodings: Vec<Encoding> = windows.iter().map(|(_, window)| window.encoding.clone()).collect();
    let mut logits = vec![Vec::new(); texts.len()];
    let mut num_labels = 1;
    for rows in by_length(&kiln_tokenize::lengths(&encodings), batch_size) {
        let batch = pad(&encodings, &rows, pad_token_id);
        let tokens = unit_tokens(&batch, |row| windows[row].1);
        if tokens.is_empty() {
            continue;
        }
        let count = tokens.len();
        let tokens = Tensor::<1, Int>::from_data(TensorData::new(tokens, [count]), device);
        let output = model.forward(inputs(&batch, device), tokens);
        [_, num_labels] = output.dims();
        let output = output.into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32");
        let mut remaining = output.as_slice();
        for row in rows {
            let (text, UnitWindow { own, .. }) = windows[row];
            let units = texts[text].last().map_or(0, |window| window.own.end);
            let (window_logits, later) = remaining.split_at(own.len() * num_labels);
            remaining = later;
            logits[text].resize(units * num_labels, 0.0);
            logits[text][own.start * num_labels..own.end * num_labels].copy_from_slice(window_logits);
        }
    }
    decode(model, logits, num_labels)
}

/// # Shapes
/// - `logits`: row-major `[units, num_labels]` for each text
fn decode(model: &TokenClassifier, logits: Vec<Vec<f32>>, num_labels: usize) -> Tags {
    let crf = model.crf.as_ref().map(|crf| crf.to_host());
    let decode = |logits: &Vec<f32>| match &crf {
        Some(crf) => crf.decode(logits),
        None => logits.chunks_exact(num_labels).map(argmax).collect(),
    };
    let tags: Vec<Vec<LabelId>> = logits.iter().map(decode).collect();
    let score = |(logits, tags): (&Vec<f32>, &Vec<LabelId>)| {
        logits.chunks_exact(num_labels).zip(tags).map(|(logits, &tag)| softmax(logits)[tag]).collect()
    };
    let scores = logits.iter().zip(&tags).map(score).collect();
    Tags { tags, scores, logits }
}
