use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Tensor, TensorData};

/// Rotary position embeddings (Su et al., 2021). The features i and i + head / 2 of a head are rotated by the angle
/// position · θ^(−2i / head). Clones share the computed angles.
#[derive(Clone, Debug)]
pub struct Rotary {
    theta: f32,
    head: usize,
    angles: Arc<Mutex<Arc<Angles>>>,
}

#[cfg(feature = "flex")]
pub(crate) use crate::cpu::Angles;

/// The cosines and sines of the angles, `[positions, head / 2]` each.
#[cfg(not(feature = "flex"))]
#[derive(Debug, Default)]
pub(crate) struct Angles {
    pub(crate) cosines: Vec<f32>,
    pub(crate) sines: Vec<f32>,
}

impl Rotary {
    /// Creates the embeddings for heads of width `head`.
    ///
    /// # Panics
    /// When `head` is odd.
    pub fn new(theta: f64, head: usize) -> Self {
        assert!(head.is_multiple_of(2), "a head of {head} features is not made of pairs");
        Self { theta: theta as f32, head, angles: Arc::default() }
    }

    /// The angles of at least `seq` positions, computed in f32 as in transformers.
    pub(crate) fn angles(&self, seq: usize) -> Arc<Angles> {
        let mut kept = self.angles.lock().unwrap_or_else(PoisonError::into_inner);
        let half = self.head / 2;
        if kept.cosines.len() < seq * half {
            let frequency = |at: usize| 1.0 / self.theta.powf((2 * at) as f32 / self.head as f32);
            let frequencies: Vec<f32> = (0..half).map(frequency).collect();
            let positions = 0..seq.next_power_of_two();
            let angles =
                positions.flat_map(|position| frequencies.iter().map(move |of| f64::from(position as f32 * of)));
            let (cosines, sines) = angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip();
            *kept = Arc::new(Angles { cosines, sines });
        }
        kept.clone()
    }

    /// Rotates `x` with burn's operations.
    ///
    /// # Shapes
    /// - `x`, output: `[batch, heads, seq, head]`
    pub(crate) fn plain(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, _, seq, head] = x.dims();
        let (angles, half) = (self.angles(seq), head / 2);
        let table = |values: &[f32]| {
            let values = TensorData::new(values[..seq * half].to_vec(), [1, 1, seq, half]);
            Tensor::<4>::from_data(values, &x.device()).cast(x.dtype())
        };
        let (cosines, sines) = (table(&angles.cosines), table(&angles.sines));
        let (first, second) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
        let turned = first.clone() * cosines.clone() - second.clone() * sines.clone();
        Tensor::cat(vec![turned, second * cosines + first * sines], 3)
    }
}
