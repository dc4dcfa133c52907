use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};
use kiln_bert::ParameterPath;
use kiln_kernels::sum_of_squares;

/// Gradients by parameter name, summed over the batches of one update, each flattened to `[elements]`.
#[derive(Debug, Default)]
pub struct GradientSum {
    by_name: BTreeMap<String, Tensor<1>>,
}

impl GradientSum {
    /// Adds the gradients of a module's parameters from a backward pass.
    pub fn add<M: Module>(&mut self, module: &M, gradients: Gradients) {
        each_gradient(module, gradients, &mut |name, gradient| self.insert(name, gradient));
    }

    /// Adds a gradient of one parameter, `[elements]`.
    pub(crate) fn insert(&mut self, name: String, gradient: Tensor<1>) {
        let sum = match self.by_name.remove(&name) {
            Some(sum) => sum + gradient,
            None => gradient,
        };
        self.by_name.insert(name, sum);
    }

    /// The gradients with their parameter names, each `[elements]`, in the layout of the module.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor<1>)> {
        self.by_name.iter().map(|(name, gradient)| (name.as_str(), gradient))
    }

    /// The global norm of the gradients.
    pub fn norm(&self) -> f64 {
        sum_of_squares(self.by_name.values()).sqrt()
    }

    /// The factor that reduces a norm to `max_norm`, or 1 if the norm is smaller, as in PyTorch's `clip_grad_norm_`. With
    /// `max_norm` 0, it is always 1.
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

/// A function that receives the name of a parameter and its gradient, `[elements]`.
pub type Take<'a> = &'a mut dyn FnMut(String, Tensor<1>);

/// Passes the gradients of a module's parameters from a backward pass to `take`.
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
