use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData};
use kiln_bert::{NamedParameter, ParameterPath, Weights};
use kiln_kernels::{AdamWStep, adamw};

use crate::trainable::layer;
use crate::{Error, GradientSum, Trainable, UpdateRule};

/// Adam with decoupled weight decay (Loshchilov and Hutter, 2019), as PyTorch computes it.
///
/// A [`Trainable`] determines the learning rate and weight decay of each parameter.
#[derive(Clone, Debug)]
pub struct AdamW {
    trainable: Trainable,
    updates: i32,
    moments: BTreeMap<String, Moments>,
}

/// Running means of the gradient and of its square, `[elements]`.
#[derive(Clone, Debug)]
struct Moments {
    first: Tensor<1>,
    second: Tensor<1>,
}

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

impl AdamW {
    /// An optimizer before the first update.
    pub fn new(trainable: Trainable) -> Self {
        Self { trainable, updates: 0, moments: BTreeMap::new() }
    }

    /// Updates every parameter that has a gradient. The gradients are first multiplied by `scale`: a clip factor, or 1.
    pub fn step<M: Module>(&mut self, module: M, gradients: GradientSum, learning_rate: f64, scale: f64) -> M {
        self.updates += 1;
        let layers = gradients.iter().filter_map(|(name, _)| layer(name)).max().map_or(0, |last| last + 1);
        let path = ParameterPath::default();
        module.map(&mut Update { optimizer: self, path, gradients, learning_rate, scale, layers })
    }

    /// The parameters that are trained, and their learning rates and weight decay.
    pub fn trainable(&self) -> &Trainable {
        &self.trainable
    }

    /// The moments as named tensors, for a checkpoint.
    pub(crate) fn state(&self) -> Vec<NamedParameter> {
        let named = |prefix: &str, name: &str, moment: &Tensor<1>| NamedParameter {
            name: format!("{prefix}.{name}"),
            shape: moment.dims().to_vec(),
            values: moment.to_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32"),
        };
        self.moments
            .iter()
            .flat_map(|(name, moments)| {
                [named("first_moment", name, &moments.first), named("second_moment", name, &moments.second)]
            })
            .collect()
    }

    /// Restores the optimizer from its [`AdamW::state`] after `updates` updates. The names and shapes of the state were
    /// checked before.
    pub(crate) fn restore(
        trainable: Trainable,
        updates: usize,
        state: &Weights,
        device: &Device,
    ) -> Result<Self, Error> {
        let read = |name: &str| -> Result<Tensor<1>, Error> {
            let values = state.read(name)?.ok_or_else(|| Error::Checkpoint {
                path: state.path().to_owned(),
                reason: format!("there is no `{name}`"),
            })?;
            let elements = values.len();
            Ok(Tensor::from_data(TensorData::new(values, [elements]), device))
        };
        let mut moments = BTreeMap::new();
        for name in state.names().filter_map(|name| name.strip_prefix("first_moment.")) {
            let first = read(&format!("first_moment.{name}"))?;
            let second = read(&format!("second_moment.{name}"))?;
            moments.insert(name.to_owned(), Moments { first, second });
        }
        Ok(Self { updates: updates as i32, moments, ..Self::new(trainable) })
    }
}

struct Update<'a> {
    optimizer: &'a mut AdamW,
    path: ParameterPath,
    gradients: GradientSum,
    learning_rate: f64,
    scale: f64,
    /// The number of encoder layers, up to the last one with a gradient.
    layers: i32,
}

impl Update<'_> {
    /// θ ← θ·(1 − η·λ) − η/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε)
    fn update(&mut self, name: String, weights: Tensor<1>, gradient: Tensor<1>) -> Tensor<1> {
        let UpdateRule { rate, weight_decay } = self.optimizer.trainable.rule(&self.path, self.layers);
        let updates = self.optimizer.updates;
        let learning_rate = self.learning_rate * rate;
        let step = AdamWStep {
            gradient_scale: self.scale as f32,
            decay: (1.0 - learning_rate * weight_decay) as f32,
            betas: [BETA_1, BETA_2],
            step_size: (learning_rate / (1.0 - BETA_1.powi(updates))) as f32,
            correction: (1.0 - BETA_2.powi(updates)).sqrt() as f32,
            epsilon: EPSILON as f32,
        };
        let Moments { first, second } = self
            .optimizer
            .moments
            .remove(&name)
            .unwrap_or_else(|| Moments { first: gradient.zeros_like(), second: gradient.zeros_like() });
        let [weights, first, second] = adamw([weights, first, second], gradient, step);
        self.optimizer.moments.insert(name, Moments { first, second });
        weights
    }
}

impl ModuleMapper for Update<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        let Some(gradient) = self.gradients.take(&name) else { return param };
        let (id, tensor, mapper) = param.consume();
        let shape = tensor.shape();
        let updated = self.update(name, tensor.inner().reshape([-1]), gradient);
        Param::from_mapped_value(id, Tensor::from_inner(updated.reshape(shape)).require_grad(), mapper)
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::LinearConfig;
    use kiln_backend::{Backend, Flex};
    use kiln_bert::parameters;

    use super::*;

    /// With one weight and gradient g, the weight after the first update is θ·(1 − ηλ) − η·g/(|g| + ε).
    #[test]
    fn the_first_update_is_the_sign_of_the_gradient() {
        let device = Flex::device(0).autodiff();
        let mut linear = LinearConfig::new(1, 1).init(&device);
        linear.weight = Param::from_data([[2.0]], &device);
        linear.bias = Some(Param::from_data([1.0], &device));
        let x = Tensor::<2>::from_data([[-3.0]], &device);
        let mut gradients = GradientSum::default();
        gradients.add(&linear, linear.forward(x).sum().backward());
        assert!((gradients.norm() - 10f64.sqrt()).abs() < 1e-6);

        let linear =
            AdamW::new(Trainable { weight_decay: 0.5, ..Trainable::default() }).step(linear, gradients, 0.1, 1.0);
        let values: Vec<f32> = parameters(&linear).into_iter().flat_map(|parameter| parameter.values).collect();
        assert!((values[0] - (2.0 * 0.95 + 0.1)).abs() < 1e-6, "the weight decays: {values:?}");
        assert!((values[1] - (1.0 - 0.1)).abs() < 1e-6, "the bias does not: {values:?}");
    }

    #[test]
    fn clipping_is_pytorch_s() {
        assert_eq!(GradientSum::clip_factor(0.5, 1.0), 1.0);
        assert_eq!(GradientSum::clip_factor(3.0, 0.0), 1.0);
        assert!((GradientSum::clip_factor(4.0, 1.0) - 0.25).abs() < 1e-6);
    }
}
