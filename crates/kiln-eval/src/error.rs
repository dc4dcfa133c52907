/// An error of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An output of the model is not finite.
    #[error("row {row}: the model's output is {value}, expected a finite number; its weights may be damaged")]
    Output {
        /// The row, counted from 1.
        row: usize,
        /// The output: NaN or infinite.
        value: f32,
    },
    /// The mean loss is not finite.
    #[error("the mean loss is {loss}, expected a finite number; the model's weights may be damaged")]
    Loss {
        /// The loss: NaN or infinite.
        loss: f64,
    },
}

/// Checks that all outputs of a model are finite.
///
/// # Shapes
/// - `outputs`: row-major `[rows, width]`
pub(crate) fn check_outputs(outputs: &[f32], width: usize) -> Result<(), Error> {
    match outputs.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::Output { row: at / width.max(1) + 1, value: outputs[at] }),
    }
}

pub(crate) fn check_loss(loss: f64) -> Result<(), Error> {
    if loss.is_finite() { Ok(()) } else { Err(Error::Loss { loss }) }
}
