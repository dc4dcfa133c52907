//! The choice of a bundle's smoothing: the one whose outputs on calibration texts are closest to the model in f32.

use std::collections::BTreeMap;

use burn::tensor::Device;
use kiln_bert::{Bert, BertConfig, InputRanges, Linear, SharedInput, Weights, tensor_names};
use kiln_heads::Pooling;
use kiln_kernels::Precision;
use kiln_schema::Task;

use crate::bundle::load_stored;
use crate::manifest::{Candidate, Smoothed};
use crate::seal::load;
use crate::smoothing::{LayerInput, Smoothing};
use crate::verify::entry_of;
use crate::weights::WEIGHTS;
use crate::{ActivationScales, Error, Model, Sealing};

/// The values of SmoothQuant's α that are tried. `None` is no smoothing.
const STRENGTHS: [Option<f64>; 4] = [None, Some(0.3), Some(0.5), Some(0.7)];

/// A text, or a pair of texts.
type Text<'a> = (&'a str, Option<&'a str>);

impl Sealing {
    /// Calibrates an int8 bundle with SmoothQuant (Xiao et al., 2022). It scales down the channels of a layer's input that
    /// are far larger than the others, and scales up the matching columns of the weight. Three strengths and no smoothing
    /// are tried. The bundle gets the one with the smallest mean squared error of the logits compared with the model in f32.
    /// If there are no logits, the vectors are compared. Static scales come from the smoothed inputs on the same texts.
    ///
    /// # Errors
    /// When the bundle's precision is not int8, there are no texts, the model cannot compute one, or a file cannot be
    /// written.
    pub fn smooth(mut self, texts: &[Text<'_>], scales: ActivationScales, device: &Device) -> Result<Self, Error> {
        if self.manifest.precision != Precision::Int8 {
            return Err(Error::NotInt8);
        }
        if texts.is_empty() {
            return Err(Error::NoTexts);
        }
        let (inputs, expected) = self.observed(texts, device)?;
        let write = |strength| self.weights.write(&Smoothing::new(&inputs, strength, scales), self.path(), device);
        let mut candidates = Vec::new();
        for strength in STRENGTHS {
            write(strength)?;
            let found = answers(&load_stored(self.path(), &self.manifest, device)?, texts)?;
            candidates.push(Candidate { strength, mean_squared_error: mean_squared_error(&found, &expected) });
        }
        let best = |a: &&Candidate, b: &&Candidate| a.mean_squared_error.total_cmp(&b.mean_squared_error);
        let strength = candidates.iter().min_by(best).expect("there are four").strength;
        write(strength)?;
        self.manifest.files.insert(WEIGHTS.to_owned(), entry_of(&self.path().join(WEIGHTS))?);
        self.manifest.sha256 = self.manifest.digest();
        self.manifest.smoothing = Some(Smoothed { strength, scales, texts: texts.len(), candidates });
        self.write_manifest()?;
        Ok(self)
    }

    /// The inputs of the layers of the model in f32, and its outputs.
    fn observed(&self, texts: &[Text<'_>], device: &Device) -> Result<(Vec<LayerInput>, Vec<f32>), Error> {
        let mut model = match load(&self.weights.model, device)? {
            // With one row at a time there is no padding, which would be observed too.
            Model::Predictor(predictor) => Model::Predictor(predictor.with_batch_size(1)),
            model @ Model::Encoder(_) => model,
        };
        let bert = match &mut model {
            Model::Predictor(predictor) => predictor.bert_mut(),
            Model::Encoder(embedder) => embedder.bert_mut(),
        };
        let ranges = observe(bert);
        let shared = bert.shared_inputs();
        let answers = answers(&model, texts)?;
        Ok((self.layer_inputs(&shared, &ranges)?, answers))
    }

    fn layer_inputs(
        &self,
        shared: &[SharedInput],
        ranges: &BTreeMap<String, InputRanges>,
    ) -> Result<Vec<LayerInput>, Error> {
        let (config, weights) =
            (BertConfig::from_folder(&self.weights.model)?, Weights::from_folder(&self.weights.model)?);
        let tensor_name = tensor_names(&config, &weights);
        let mut inputs = Vec::with_capacity(shared.len());
        for SharedInput { readers, giver } in shared {
            // Some layers read fewer rows than others.
            let activations = widest(readers.iter().filter_map(|reader| Some(ranges.get(reader)?.get())));
            // The layer was never computed.
            if activations.is_empty() {
                continue;
            }
            let readers: Vec<String> = readers.iter().map(|reader| tensor_name(&format!("{reader}.weight"))).collect();
            let mut columns = Vec::new();
            for reader in &readers {
                let values = weights.read(reader)?.unwrap_or_default();
                columns.extend(values.chunks(activations.len()).map(<[f32]>::to_vec));
            }
            let giver = giver.iter().flat_map(|giver| {
                ["weight", "bias"].map(|of| (tensor_name(&format!("{}.{of}", giver.name)), giver.first))
            });
            inputs.push(LayerInput { readers, givers: giver.collect(), activations, weights: largest(columns) });
        }
        Ok(inputs)
    }
}

/// Makes each linear layer record the ranges of its inputs.
fn observe(bert: &mut Bert) -> BTreeMap<String, InputRanges> {
    let observed =
        |(name, linear): (String, &mut Linear)| (name, linear.input_ranges.insert(InputRanges::default()).clone());
    bert.linear_layers().into_iter().map(observed).collect()
}

/// The concatenated logits of the texts, or their vectors if the model has no logits for a text.
fn answers(model: &Model, texts: &[Text<'_>]) -> Result<Vec<f32>, Error> {
    let mut answers = Vec::new();
    for &(text, text_pair) in texts {
        match model {
            Model::Predictor(predictor) if predictor.task() != Task::MaskedLm => {
                let prepared = predictor.prepare(text, text_pair)?;
                for computed in predictor.compute(&[&prepared]) {
                    answers.extend(computed?.logits);
                }
            }
            Model::Predictor(predictor) => {
                answers.extend(predictor.embedder(Pooling::Mean, false)?.embed(&[(text, text_pair)])?);
            }
            Model::Encoder(embedder) => answers.extend(embedder.embed(&[(text, text_pair)])?),
        }
    }
    Ok(answers)
}

fn mean_squared_error(found: &[f32], expected: &[f32]) -> f64 {
    let squares = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    let mean = squares.sum::<f64>() / expected.len().max(1) as f64;
    // Rounded to six digits, which JSON preserves exactly.
    format!("{mean:.5e}").parse().unwrap_or(mean)
}

/// For each channel, the union of the ranges. Layers without observed inputs have no ranges and are skipped.
fn widest(layers: impl Iterator<Item = Vec<[f32; 2]>>) -> Vec<[f32; 2]> {
    let both = |[low, high]: [f32; 2], [other_low, other_high]: [f32; 2]| [low.min(other_low), high.max(other_high)];
    let join = |a: Vec<[f32; 2]>, b: Vec<[f32; 2]>| a.into_iter().zip(b).map(|(a, b)| both(a, b)).collect();
    layers.filter(|channels| !channels.is_empty()).reduce(join).unwrap_or_default()
}

/// The largest magnitude in each column. All rows have the same length.
fn largest(rows: impl IntoIterator<Item = Vec<f32>>) -> Vec<f32> {
    let mut rows = rows.into_iter();
    let mut largest: Vec<f32> = rows.next().unwrap_or_default().iter().map(|value| value.abs()).collect();
    for row in rows {
        largest.iter_mut().zip(row).for_each(|(largest, value)| *largest = largest.max(value.abs()));
    }
    largest
}
