use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;
use kiln_bert::ParameterPath;

/// Decides by parameter name which parameters are trained, at which rates, and which a checkpoint holds.
///
/// Names that begin with `bert.` belong to the encoder, all others to the head. For learning rates, the pooler counts as
/// part of the head.
///
/// ```
/// use kiln_train::{Scope, Trainable};
///
/// let trainable = Trainable { scope: Scope::Head, ..Trainable::default() };
/// assert!(trainable.learns("head.classifier.weight"));
/// assert!(!trainable.learns("bert.encoder.layer.0.output.dense.weight"));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Trainable {
    /// Which parameters are trained. The others are frozen: they have no gradients and no moments, and are not saved.
    pub scope: Scope,
    /// Decoupled weight decay of all weights except biases and layer normalization.
    pub weight_decay: f64,
    /// Layer-wise learning rate decay, as in the fine-tuning of ELECTRA: the rate is multiplied by this factor for the last
    /// layer, and again for each layer below it. The embeddings, below the first layer, have the lowest rate. 1 = off.
    pub layerwise_lr_decay: f64,
    /// The head's learning rate as a multiple of the encoder's.
    pub head_rate: f64,
}

/// Which parameters are trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// All parameters.
    #[default]
    Whole,
    /// Only the head.
    Head,
    /// The head and the encoder's adapters.
    Adapters {
        /// Whether the pooler is also trained.
        pooler: bool,
    },
}

/// How a parameter is updated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateRule {
    /// Multiplier of the learning rate of the schedule.
    pub rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

impl Default for Trainable {
    fn default() -> Self {
        Self { scope: Scope::Whole, weight_decay: 0.01, layerwise_lr_decay: 1.0, head_rate: 1.0 }
    }
}

impl Trainable {
    /// Whether the parameter with this name is trained. Checkpoints hold exactly these parameters.
    pub fn learns(&self, name: &str) -> bool {
        match self.scope {
            Scope::Whole => true,
            Scope::Head => !is_encoder(name),
            Scope::Adapters { pooler } => !is_encoder(name) || is_adapter(name) || (pooler && is_pooler(name)),
        }
    }

    /// The update rule of a parameter. `layers` is the number of trained encoder layers, counted from the first.
    pub fn rule(&self, parameter: &ParameterPath, layers: i32) -> UpdateRule {
        let name = parameter.name();
        let rate = match layer(&name) {
            Some(layer) => self.layerwise_lr_decay.powi(layers - layer),
            None if name.contains("embeddings") => self.layerwise_lr_decay.powi(layers + 1),
            None if is_encoder(&name) && !is_pooler(&name) => 1.0,
            None => self.head_rate,
        };
        let weight_decay = if parameter.is_exempt_from_decay() { 0.0 } else { self.weight_decay };
        UpdateRule { rate, weight_decay }
    }

    /// Enables gradients for the trained parameters and disables them for all others.
    pub fn apply<M: Module>(&self, model: M) -> M {
        if self.scope == Scope::Whole {
            return model;
        }
        model.map(&mut Marker { trainable: self, path: ParameterPath::default() })
    }
}

fn is_encoder(name: &str) -> bool {
    name.starts_with("bert.")
}

fn is_pooler(name: &str) -> bool {
    name.starts_with("bert.pooler.")
}

fn is_adapter(name: &str) -> bool {
    name.contains(".lora_")
}

/// The index of the encoder layer in a parameter's name, such as 3 in `bert.encoder.layer.3.output.dense.bias`.
pub(crate) fn layer(name: &str) -> Option<i32> {
    name.split_once("encoder.layer.")?.1.split('.').next()?.parse().ok()
}

struct Marker<'a> {
    trainable: &'a Trainable,
    path: ParameterPath,
}

impl ModuleMapper for Marker<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.set_require_grad(self.trainable.learns(&self.path.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> ParameterPath {
        let mut path = ParameterPath::default();
        name.split('.').for_each(|part| path.enter(part, "Struct:Linear"));
        path
    }

    #[test]
    fn each_layer_learns_at_a_share_of_the_rate_above_it() {
        let trainable =
            Trainable { weight_decay: 0.1, layerwise_lr_decay: 0.5, head_rate: 10.0, ..Trainable::default() };
        for (name, rate, weight_decay) in [
            ("head.output.weight", 10.0, 0.1),
            ("classifier.weight", 10.0, 0.1),
            ("bert.pooler.dense.bias", 10.0, 0.0),
            ("bert.encoder.layer.1.output.dense.weight", 0.5, 0.1),
            ("bert.encoder.layer.0.attention.self.query.bias", 0.25, 0.0),
            ("bert.embeddings.word_embeddings.weight", 0.125, 0.1),
        ] {
            assert_eq!(trainable.rule(&path(name), 2), UpdateRule { rate, weight_decay }, "{name}");
        }
    }

    #[test]
    fn what_learns_follows_from_the_scope() {
        let learners = |scope| {
            let trainable = Trainable { scope, ..Trainable::default() };
            let names = [
                "head.classifier.weight",
                "bert.pooler.dense.weight",
                "bert.encoder.layer.0.attention.self.query.lora_A.weight",
                "bert.encoder.layer.0.attention.self.query.weight",
            ];
            names.map(|name| trainable.learns(name))
        };
        assert_eq!(learners(Scope::Whole), [true; 4]);
        assert_eq!(learners(Scope::Head), [true, false, false, false]);
        assert_eq!(learners(Scope::Adapters { pooler: false }), [true, false, true, false]);
        assert_eq!(learners(Scope::Adapters { pooler: true }), [true, true, true, false]);
    }
}
