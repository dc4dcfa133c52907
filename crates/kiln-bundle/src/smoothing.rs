//! Factors by which the rounding to int8 is shared out between a layer's input and its weight: SmoothQuant (Xiao et al., 2022,
//! arXiv 2211.10438); and the ranges of static scales.

use std::collections::BTreeMap;

use crate::ActivationScales;

/// An input that linear layers read, by the names of a checkpoint's tensors.
#[derive(Clone, Debug)]
pub(crate) struct LayerInput {
    /// The weights that are multiplied with it.
    pub readers: Vec<String>,
    /// The tensors whose entries along the first axis, from one on, give its channels; none where they give more than that.
    pub givers: Vec<(String, usize)>,
    /// The smallest and the largest value of each channel on the calibration texts.
    pub activations: Vec<[f32; 2]>,
    /// The largest magnitude in each column of the weights.
    pub weights: Vec<f32>,
}

/// What the tensors of a checkpoint are multiplied with, so that int8 rounds less of what they compute. In f32 they compute the
/// same as before. The default changes nothing.
#[derive(Debug, Default)]
pub(crate) struct Smoothing {
    rows: BTreeMap<String, Vec<f32>>,
    columns: BTreeMap<String, Vec<f32>>,
    /// By the name of the weight.
    inputs: BTreeMap<String, Vec<f32>>,
    /// By the name of the weight, where scales are static.
    ranges: BTreeMap<String, [f32; 2]>,
}

impl Smoothing {
    /// Equation 4 of the paper: channel `j` of an input is divided by `max|x_j|^α / max|w_j|^(1 − α)`, and column `j` of the
    /// weights that read it is multiplied with that. `strength` is α; without one nothing is divided.
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

    /// What the columns of the input of a weight are multiplied with when they are rounded; none where the input is smooth
    /// already.
    pub(crate) fn of_input(&self, weight: &str) -> Option<&[f32]> {
        self.inputs.get(weight).map(Vec::as_slice)
    }

    /// Between what the smoothed input of a weight is rounded; none where each row has its own range.
    pub(crate) fn range_of_input(&self, weight: &str) -> Option<[f32; 2]> {
        self.ranges.get(weight).copied()
    }

    /// Multiplies a tensor's values, row-major with the first axis for rows.
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

/// The range of all channels, each divided by its factor, and of 0.
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
    // Far from where f32 ends, whatever the magnitudes are.
    activations.zip(weights).map(factor).map(|factor| factor.clamp(1e-6, 1e6) as f32).collect()
}

/// The magnitudes; one of a channel that was never used counts as the median one.
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
        // √16 / √4, 1 / √0.25, and for the channel that was never used √16 / 1, the median being the upper of two.
        let factors = |largest: &[f32], weights: &[f32], strength| {
            factors(&largest.iter().map(|largest| [-largest, 0.0]).collect::<Vec<_>>(), weights, strength)
        };
        assert_eq!(factors(&[16.0, 1.0, 0.0], &[4.0, 0.25, 1.0], 0.5), [2.0, 2.0, 4.0]);
        // All that the activations have goes to the weights, then nothing but what levels the weights.
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
        // Divided by 2, 2 and 4.
        let range = |strength| {
            let smoothing = Smoothing::new(&[input(vec![])], strength, ActivationScales::Static);
            smoothing.range_of_input("reader").expect("it is static")
        };
        assert_eq!((range(Some(0.5)), range(None)), ([-8.0, 1.0], [-16.0, 2.0]));
        assert_eq!(super::range(&[[3.0, 5.0]], None), [0.0, 5.0]);
        assert_eq!(super::range(&[[-3.0, -1.0]], Some(&[0.5])), [-6.0, 0.0]);
    }
}
