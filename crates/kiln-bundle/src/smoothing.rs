//! SmoothQuant (Xiao et al., 2022, arXiv 2211.10438): factors that move quantization error from the input of a layer to its
//! weight. Also the ranges of static scales.

use std::collections::BTreeMap;

use crate::ActivationScales;

/// An input that linear layers read. Tensors have the names of the checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct LayerInput {
    /// The weights that are multiplied with the input.
    pub readers: Vec<String>,
    /// The tensors that produce the input, and the first index on their first axis that does. Empty if the result of these
    /// tensors is also used elsewhere, or the input is not linear in them.
    pub givers: Vec<(String, usize)>,
    /// The minimum and maximum of each channel on the calibration texts.
    pub activations: Vec<[f32; 2]>,
    /// The largest magnitude in each column of the weights that read the input.
    pub weights: Vec<f32>,
}

/// Factors for the tensors of a checkpoint that reduce the quantization error of int8. In f32 the model computes the same
/// as before. The default changes nothing.
#[derive(Debug, Default)]
pub(crate) struct Smoothing {
    rows: BTreeMap<String, Vec<f32>>,
    columns: BTreeMap<String, Vec<f32>>,
    /// Factors of inputs that are smoothed when they are quantized, by the name of the weight.
    inputs: BTreeMap<String, Vec<f32>>,
    /// Ranges of static scales, by the name of the weight.
    ranges: BTreeMap<String, [f32; 2]>,
}

impl Smoothing {
    /// Equation 4 of the paper: channel `j` of an input is divided by `max|x_j|^α / max|w_j|^(1 − α)`, and column `j` of the
    /// weights that read it is multiplied by the same factor. `strength` is α. Without it nothing is smoothed.
    pub(crate) fn new(inputs: &[LayerInput], strength: Option<f64>, scales: ActivationScales) -> Self {
        let mut smoothing = Self::default();
        for input in inputs {
            let factors = strength.map(|strength| factors(&input.activations, &input.weights, strength));
            if scales == ActivationScales::Static {
                let range = range(&input.activations, factors.as_deref());
                smoothing.ranges.extend(input.readers.iter().map(|reader| (reader.clone(), range)));
            }
            let Some(factors) = factors else { continue };
            let reciprocals: Vec<f32> = factors.iter().map(|factor| 1.0 / factor).collect();
            for reader in &input.readers {
                smoothing.columns.insert(reader.clone(), factors.clone());
                if input.givers.is_empty() {
                    smoothing.inputs.insert(reader.clone(), reciprocals.clone());
                }
            }
            for (giver, first) in &input.givers {
                let rows = [vec![1.0; *first], reciprocals.clone()].concat();
                smoothing.rows.insert(giver.clone(), rows);
            }
        }
        smoothing
    }

    /// The factors for the columns of a weight's input when it is quantized. `None` if the input is not smoothed, or the
    /// tensors that produce it already are.
    pub(crate) fn of_input(&self, weight: &str) -> Option<&[f32]> {
        self.inputs.get(weight).map(Vec::as_slice)
    }

    /// The static range of a weight's smoothed input. `None` if scales are dynamic.
    pub(crate) fn range_of_input(&self, weight: &str) -> Option<[f32; 2]> {
        self.ranges.get(weight).copied()
    }

    /// Applies the factors to a tensor. The values are row-major, and the first axis is the rows.
    pub(crate) fn apply(&self, tensor: &str, values: &mut [f32]) {
        if let Some(factors) = self.rows.get(tensor) {
            let width = values.len() / factors.len();
            for (row, factor) in values.chunks_exact_mut(width.max(1)).zip(factors) {
                row.iter_mut().for_each(|value| *value *= factor);
            }
        }
        if let Some(factors) = self.columns.get(tensor) {
            for row in values.chunks_exact_mut(factors.len()) {
                row.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
            }
        }
    }
}

/// The smallest range that contains 0 and all channels, each divided by its factor.
fn range(channels: &[[f32; 2]], factors: Option<&[f32]>) -> [f32; 2] {
    let factor = |channel: usize| factors.map_or(1.0, |factors| factors[channel]);
    channels.iter().enumerate().fold([0.0, 0.0], |[low, high], (channel, range)| {
        let [own_low, own_high] = range.map(|value| value / factor(channel));
        [own_low.min(low), own_high.max(high)]
    })
}

fn factors(activations: &[[f32; 2]], weights: &[f32], strength: f64) -> Vec<f32> {
    let magnitudes: Vec<f32> = activations.iter().map(|[low, high]| low.abs().max(high.abs())).collect();
    let (activations, weights) = (known(&magnitudes), known(weights));
    let factor = |(x, w): (f64, f64)| x.powf(strength) / w.powf(1.0 - strength);
    // The bounds keep products far from the limits of f32.
    activations.zip(weights).map(factor).map(|factor| factor.clamp(1e-6, 1e6) as f32).collect()
}

/// The magnitudes. Channels that were never used get the median magnitude.
fn known(magnitudes: &[f32]) -> impl Iterator<Item = f64> {
    let mut positive: Vec<f32> = magnitudes.iter().copied().filter(|magnitude| *magnitude > 0.0).collect();
    positive.sort_by(f32::total_cmp);
    let median = positive.get(positive.len() / 2).copied().unwrap_or(1.0);
    magnitudes.iter().map(move |magnitude| f64::from(if *magnitude > 0.0 { *magnitude } else { median }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(givers: Vec<(String, usize)>) -> LayerInput {
        let (activations, weights) = (vec![[-16.0, 2.0], [-1.0, 1.0], [0.0, 0.0]], vec![4.0, 0.25, 1.0]);
        LayerInput { readers: vec!["reader".to_owned()], givers, activations, weights }
    }

    #[test]
    fn factors_by_hand() {
        // √16 / √4, 1 / √0.25, and √16 / 1 for the channel that was never used. The median of two values is the larger.
        let factors = |largest: &[f32], weights: &[f32], strength| {
            factors(&largest.iter().map(|largest| [-largest, 0.0]).collect::<Vec<_>>(), weights, strength)
        };
        assert_eq!(factors(&[16.0, 1.0, 0.0], &[4.0, 0.25, 1.0], 0.5), [2.0, 2.0, 4.0]);
        // With α = 1 only the activations decide the factors, with α = 0 only the weights.
        assert_eq!(factors(&[16.0, 2.0], &[4.0, 8.0], 1.0), [16.0, 2.0]);
        assert_eq!(factors(&[16.0, 2.0], &[4.0, 8.0], 0.0), [0.25, 0.125]);
        assert_eq!(factors(&[0.0, 0.0], &[1.0, 1.0], 0.5), [1.0, 1.0]);
    }

    #[test]
    fn an_input_is_divided_where_it_is_given_or_where_it_is_rounded() {
        let mut weight = vec![1.0; 6];
        let stored = Smoothing::new(&[input(vec![])], Some(0.5), ActivationScales::Dynamic);
        stored.apply("reader", &mut weight);
        assert_eq!(weight, [2.0, 2.0, 4.0, 2.0, 2.0, 4.0]);
        assert_eq!(stored.of_input("reader"), Some([0.5, 0.5, 0.25].as_slice()));
        assert_eq!(stored.range_of_input("reader"), None);

        let givers = vec![("giver.weight".to_owned(), 2), ("giver.bias".to_owned(), 2)];
        let given = Smoothing::new(&[input(givers)], Some(0.5), ActivationScales::Dynamic);
        assert_eq!(given.of_input("reader"), None);
        let (mut weight, mut bias) = (vec![8.0; 10], vec![8.0; 5]);
        given.apply("giver.weight", &mut weight);
        given.apply("giver.bias", &mut bias);
        assert_eq!(weight, [8.0, 8.0, 8.0, 8.0, 4.0, 4.0, 4.0, 4.0, 2.0, 2.0]);
        assert_eq!(bias, [8.0, 8.0, 4.0, 4.0, 2.0]);
        Smoothing::default().apply("giver.bias", &mut bias);
        assert_eq!(bias, [8.0, 8.0, 4.0, 4.0, 2.0]);
    }

    #[test]
    fn a_static_range_is_that_of_the_smoothed_input_and_of_zero() {
        // The channels are divided by 2, 2 and 4.
        let range = |strength| {
            let smoothing = Smoothing::new(&[input(vec![])], strength, ActivationScales::Static);
            smoothing.range_of_input("reader").expect("it is static")
        };
        assert_eq!((range(Some(0.5)), range(None)), ([-8.0, 1.0], [-16.0, 2.0]));
        assert_eq!(super::range(&[[3.0, 5.0]], None), [0.0, 5.0]);
        assert_eq!(super::range(&[[-3.0, -1.0]], Some(&[0.5])), [-6.0, 0.0]);
    }
}
