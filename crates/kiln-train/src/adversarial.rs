use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;
use kiln_bert::ParameterPath;
use kiln_kernels::sum_of_squares;

use crate::GradientSum;

/// The end of the name of an encoder's word embeddings.
pub(crate) const WORDS: &str = "embeddings.word_embeddings.weight";

/// The model with its word embeddings moved along the gradient `g` of a batch's loss, by `epsilon · g/‖g‖`. This is the fast
/// gradient method (Miyato et al., *Adversarial Training Methods for Semi-Supervised Text Classification*, 2017, equation
/// 5). None if the word embeddings have no gradient, or if its norm is zero or not finite.
pub(crate) fn adversary<M: Module>(model: &M, gradients: &GradientSum, epsilon: f64) -> Option<M> {
    let (_, gradient) = gradients.iter().find(|(name, _)| name.ends_with(WORDS))?;
    let norm = sum_of_squares([gradient]).sqrt();
    if norm == 0.0 || !norm.is_finite() {
        return None;
    }
    let step = gradient.clone() * (epsilon / norm);
    Some(model.clone().map(&mut Mover { step, path: ParameterPath::default() }))
}

struct Mover {
    /// `[elements]`
    step: Tensor<1>,
    path: ParameterPath,
}

impl ModuleMapper for Mover {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.path.name().ends_with(WORDS) {
            return param;
        }
        let step = self.step.clone();
        param.map(|weights| {
            let shape = weights.shape();
            Tensor::from_inner(weights.inner() + step.reshape(shape)).require_grad()
        })
    }
}
