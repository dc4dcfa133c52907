use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};
use kiln_bert::ParameterPath;
use kiln_kernels::sum_of_squares;

/// Gradients by a parameter's name, summed over the batches of one update, each flattened to `[elements]`.
#[derive(Debug, Default)]
pub struct GradientSum {
    by_name: BTreeMap<String, Tensor<1>>,
}

impl GradientSum {
    /// Takes a backward pass's gradients of a module's parameters and adds them.
    pub fn add<M: Module>(&mut self, module: &M, gradients: Gradients) {
        each_gradient(module, gradients, &mut |name, gradient| self.insert(name, gradient));
    }

    /// Adds the gradient of one parameter, `[elements]`.
    pub(crate) fn insert(&mut self, name: String, gradient: Tensor<1>) {
        let sum = match self.by_name.remove(&name) {
            Some(sum) => sum + gradient,
            None => gradient,
        };
        self.by_name.insert(name, sum);
    }

    /// The gradients by the names of their parameters, each `[elements]`, in the module's own layout.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor<1>)> {
        self.by_name.iter().map(|(name, gradient)| (name.as_str(), gradient))
    }

    /// The norm of all gradients together.
    pub fn norm(&self) -> f64 {
        sum_of_squares(self.by_name.values()).sqrt()
    }

    /// The factor that brings the norm down to `max_norm`, or 1: that of PyTorch's `clip_grad_norm_`. 0 leaves it alone.
    pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
        if max_norm > 0.0 { (max_norm / (norm + 1e-6)).min(1.0) } else { 1.0 }
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Tensor<1>> {
        self.by_name.remove(name)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    pub(crate) fn into_each(self) -> impl Iterator<Item = (String, Tensor<1>)> {
        self.by_name.into_iter()
    }
}

/// Takes the gradient of one parameter, `[elements]`, by its name.
pub type Take<'a> = &'a mut dyn FnMut(String, Tensor<1>);

/// Hands over a backward pass's gradients of a module's parameters.
pub(crate) fn each_gradient<M: Module>(module: &M, gradients: Gradients, take: Take<'_>) {
    module.visit(&mut Collector { path: ParameterPath::default(), gradients, take });
}

struct Collector<'a> {
    path: ParameterPath,
    gradients: Gradients,
    take: Take<'a>,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = param.val().grad_remove(&mut self.gradients) else { return };
        (self.take)(self.path.name(), gradient.reshape([-1]));
    }
}
