use burn::tensor::{Device, Tensor, TensorData};
use kiln_heads::{MaskedLm, hidden_state_error_sum};

use crate::TeacherStates;

/// Distillation of a teacher's hidden states. The loss is `alpha · masked tokens + (1 − alpha) · hidden states`.
#[derive(Debug)]
pub struct Distillation {
    /// The teacher's hidden states for the store's rows.
    pub states: TeacherStates,
    /// Weight of the masked-token loss.
    pub alpha: f64,
}

impl TeacherStates {
    /// Mean squared error of the last layer's hidden states in the student's latest forward pass, over the width and over
    /// the tokens that have a teacher state.
    ///
    /// # Shapes
    /// - `rows`: for each row of the batch, its index in the store and the position of its first ordinary token
    /// - output: `[1]`
    ///
    /// # Panics
    /// When the model does not keep the outputs of its layers, or its width differs from that of the states.
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
