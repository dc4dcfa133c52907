use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};
use kiln_heads::TokenClassifier;
use kiln_metrics::{argmax, entities, softmax, words};
use kiln_schema::{LabelId, LabelSet};
use kiln_tokenize::{Batch, Encoding, UnitWindow, by_length, pad};

use crate::{EntityPrediction, inputs};

/// The tags of some texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Tags {
    /// Of each text, of each unit.
    pub tags: Vec<Vec<LabelId>>,
    /// Their probabilities by the softmax of their own logits.
    pub scores: Vec<Vec<f64>>,
    /// The logits, row-major `[units, num_labels]` for each text.
    pub logits: Vec<Vec<f32>>,
}

/// The tokens that stand for the units that each of a batch's windows speaks for, as `row · seq + position`.
pub fn unit_tokens<'a>(batch: &Batch, window: impl Fn(usize) -> &'a UnitWindow) -> Vec<i32> {
    let of = |(at, row): (usize, &usize)| {
        let UnitWindow { units, own, .. } = window(*row);
        let tokens = units.iter().filter(|(unit, _)| own.contains(unit));
        tokens.map(move |(_, token)| (at * batch.seq + token) as i32).collect::<Vec<_>>()
    };
    batch.rows.iter().enumerate().flat_map(of).collect()
}

/// A model's tags for texts in windows: by Viterbi's algorithm where it has a field, else each unit's best.
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
    let lengths = kiln_tokenize::lengths(&encodings);
    let units = |windows: &Vec<UnitWindow>| windows.last().map_or(0, |window| window.own.end);
    let mut found = Tags {
        tags: texts.iter().map(|text| vec![0; units(text)]).collect(),
        scores: texts.iter().map(|text| vec![0.0; units(text)]).collect(),
        logits: vec![Vec::new(); texts.len()],
    };
    let field = model.crf.as_ref().map(|crf| crf.to_host());
    for rows in by_length(&lengths, batch_size) {
        let batch = pad(&encodings, &rows, pad_token_id);
        let tokens = unit_tokens(&batch, |row| windows[row].1);
        if tokens.is_empty() {
            continue;
        }
        let count = tokens.len();
        let tokens = Tensor::<1, Int>::from_data(TensorData::new(tokens, [count]), device);
        let logits = model.forward(inputs(&batch, device), tokens);
        let [_, num_labels] = logits.dims();
        let logits = logits.into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32");
        let mut logits = logits.as_slice();
        for row in rows {
            let (text, UnitWindow { own, .. }) = windows[row];
            let (these, rest) = logits.split_at(own.len() * num_labels);
            logits = rest;
            let each = || these.chunks_exact(num_labels);
            let tags = match &field {
                Some(field) => field.decode(these),
                None => each().map(argmax).collect(),
            };
            for ((unit, tag), logits) in own.clone().zip(tags).zip(each()) {
                found.tags[text][unit] = tag;
                found.scores[text][unit] = softmax(logits)[tag];
            }
            let all = &mut found.logits[text];
            let len = units(&texts[text]) * num_labels;
            all.resize(len, 0.0);
            all[own.start * num_labels..own.end * num_labels].copy_from_slice(these);
        }
    }
    found
}

/// What the tags of a text's units spell. Broken sequences mean what seqeval's default mode takes them for, and of words,
/// that no unit is left out.
pub(crate) fn spell(
    text: &str,
    units: &[Range<usize>],
    tags: &[LabelId],
    scores: &[f64],
    labels: &LabelSet,
) -> Vec<EntityPrediction> {
    let names: Vec<&str> = tags.iter().map(|tag| labels.name(*tag)).collect();
    let spans: Vec<(String, Range<usize>)> = if labels.names().iter().any(|name| name.contains('-')) {
        entities(&names).into_iter().map(|entity| (entity.label, entity.start..entity.end)).collect()
    } else {
        words(&names).into_iter().map(|word| ("_".to_owned(), word)).collect()
    };
    let characters = |byte: usize| text[..byte].chars().count();
    let entity = |(label, span): (String, Range<usize>)| {
        let (start, end) = (units[span.start].start, units[span.end - 1].end);
        let score = scores[span.clone()].iter().sum::<f64>() / span.len() as f64;
        EntityPrediction {
            label,
            start: characters(start),
            end: characters(end),
            text: text[start..end].to_owned(),
            score,
        }
    };
    spans.into_iter().map(entity).collect()
}
