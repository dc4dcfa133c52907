use std::sync::Arc;

use crate::app::App;
use crate::model::{Ability, Model, Outcome};
use crate::refusal::Refusal;

/// The model with that name. Without a name, the first model that computes only vectors, or else the first model.
pub fn embedding_model(app: &App, name: Option<&str>) -> Result<Arc<Model>, Refusal> {
    let is_embedder = |model: &Model| model.ability() == Ability::Vectors;
    match name {
        None => app.model(None, is_embedder, "vectors").or_else(|_| app.model(None, |_| true, "vectors")),
        name => app.model(name, |_| true, "vectors"),
    }
}

/// Post-processing of the vectors of a request.
#[derive(Clone, Copy, Debug)]
pub struct VectorConfig {
    /// Whether each vector is normalized to length 1, after it is shortened.
    pub normalize: bool,
    /// The number of dimensions to keep.
    pub dimensions: Option<usize>,
}

impl VectorConfig {
    /// Refuses 0 dimensions, or more than the model has, before anything is computed.
    pub fn check(self, width: usize) -> Result<(), Refusal> {
        match self.dimensions {
            Some(dimensions) if dimensions == 0 || dimensions > width => {
                Err(Refusal::unprocessable(format!("dimensions: found {dimensions}, expected 1 to {width}")))
            }
            _ => Ok(()),
        }
    }

    /// The vectors, shortened and normalized.
    pub fn vectors(self, outcomes: Vec<Outcome>) -> Result<Vec<Vec<f32>>, Refusal> {
        let vector = |outcome| match outcome {
            Outcome::Vector(vector) => Ok(self.finish(vector)),
            Outcome::Answer(_) => Err(Refusal::internal()),
        };
        outcomes.into_iter().map(vector).collect()
    }

    fn finish(self, mut vector: Vec<f32>) -> Vec<f32> {
        vector.truncate(self.dimensions.unwrap_or(usize::MAX));
        if self.normalize {
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
            vector.iter_mut().for_each(|x| *x /= length);
        }
        vector
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_shortened_before_they_are_normalized() {
        let config = VectorConfig { normalize: true, dimensions: Some(2) };
        assert_eq!(config.finish(vec![3.0, 4.0, 12.0]), [0.6, 0.8]);
        assert_eq!(VectorConfig { normalize: false, dimensions: None }.finish(vec![3.0, 4.0]), [3.0, 4.0]);
        assert!(config.check(2).is_ok() && config.check(1).is_err());
    }
}
