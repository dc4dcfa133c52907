use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use kiln_bert::{NamedParameter, ParameterPath, Weights};

use crate::{Error, Trainable};

/// An exponential moving average of the trained parameters. After the first update it is their value, and after each further
/// one `decay · average + (1 − decay) · weights`, as in PyTorch's `AveragedModel` with `get_ema_multi_avg_fn(decay)`.
#[derive(Clone, Debug)]
pub struct Average {
    decay: f64,
    /// The average of each parameter by name, `[elements]`.
    values: BTreeMap<String, Tensor<1>>,
}

/// The prefix of the names of averages in a checkpoint.
pub(crate) const AVERAGE: &str = "average.";

impl Average {
    /// An average before the first update.
    pub fn new(decay: f64) -> Self {
        Self { decay, values: BTreeMap::new() }
    }

    /// Adds the weights of a model to the average, after an update.
    pub fn add<M: Module>(&mut self, model: &M, trainable: &Trainable) {
        model.visit(&mut Adder { average: self, trainable, path: ParameterPath::default() });
    }

    /// Replaces the weights of a model with the averages. Weights without an average stay as they are.
    pub fn apply<M: Module>(&self, model: M) -> M {
        model.map(&mut Replacer { average: self, path: ParameterPath::default() })
    }

    /// The averages as named tensors, for a checkpoint.
    pub(crate) fn state(&self) -> Vec<NamedParameter> {
        let named = |(name, average): (&String, &Tensor<1>)| NamedParameter {
            name: format!("{AVERAGE}{name}"),
            shape: average.dims().to_vec(),
            values: average.to_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32"),
        };
        self.values.iter().map(named).collect()
    }

    /// Restores the average from its [`Average::state`], whose names and shapes were checked before.
    pub(crate) fn restore(decay: f64, state: &Weights, device: &Device) -> Result<Self, Error> {
        let mut values = BTreeMap::new();
        for name in state.names().filter_map(|name| name.strip_prefix(AVERAGE)) {
            let numbers = state.read(&format!("{AVERAGE}{name}"))?.expect("it is one of the file's names");
            let elements = numbers.len();
            values.insert(name.to_owned(), Tensor::from_data(TensorData::new(numbers, [elements]), device));
        }
        Ok(Self { decay, values })
    }
}

struct Adder<'a> {
    average: &'a mut Average,
    trainable: &'a Trainable,
    path: ParameterPath,
}

impl ModuleVisitor for Adder<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.name();
        if !self.trainable.learns(&name) {
            return;
        }
        let weights: Tensor<1> = param.val().inner().reshape([-1]);
        let Average { decay, values } = &mut *self.average;
        let average = match values.remove(&name) {
            Some(average) => average * *decay + weights * (1.0 - *decay),
            None => weights,
        };
        values.insert(name, average);
    }
}

struct Replacer<'a> {
    average: &'a Average,
    path: ParameterPath,
}

impl ModuleMapper for Replacer<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(average) = self.average.values.get(&self.path.name()) else { return param };
        param.map(|weights| average.clone().reshape(weights.shape()))
    }
}
