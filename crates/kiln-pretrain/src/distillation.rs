use burn::tensor::{Device, Tensor, TensorData};
use kiln_heads::{MaskedLm, hidden_state_error_sum};

use crate::TeacherStates;

/// A teacher's part of a loss: `alpha · masked tokens + (1 − alpha) · hidden states`.
#[derive(Debug)]
pub struct Distillation {
    /// What the teacher makes of the store.
    pub states: TeacherStates,
    /// The share of the masked tokens' own loss.
    pub alpha: f64,
}

impl TeacherStates {
    /// The squared error of the hidden states that a model's last layer has just given: a mean over the width, and over the
    /// tokens that the teacher has a state of.
    ///
    /// # Shapes
    /// - `rows`: of each row of the batch its number in the store, and the position of its first token in the batch
    /// - output: `[1]`
    ///
    /// # Panics
    /// When the model keeps no layer's outputs, or is not as wide as the states.
    pub(crate) fn loss(&self, model: &MaskedLm, rows: &[(usize, usize)], device: &Device) -> Tensor<1> {
        let kept = model.bert.layer_outputs.as_ref().expect("a student keeps the outputs of its layers");
        let student = kept.take().pop().expect("the last layer's at least");
        let [batch, seq, width] = student.dims();
        let (mut states, mut weights) = (vec![0.0; batch * seq * width], vec![0.0f32; batch * seq]);
        for (at, &(row, first)) in rows.iter().enumerate() {
            let of_row = self.row(row).expect("the file has been whole before");
            let start = at * seq + first;
            states[start * width..][..of_row.len()].copy_from_slice(&of_row);
            for (weight, state) in weights[start..].iter_mut().zip(of_row.chunks(width)) {
                *weight = f32::from(u8::from(state.iter().any(|number| *number != 0.0)));
            }
        }
        let known = weights.iter().sum::<f32>().max(1.0);
        let tensor = |numbers, shape| TensorData::new(numbers, shape);
        let teacher = Tensor::from_data(tensor(states, vec![batch, seq, width]), device);
        let weights = Tensor::from_data(tensor(weights, vec![batch, seq]), device);
        hidden_state_error_sum(student, teacher, weights) / known
    }
}
