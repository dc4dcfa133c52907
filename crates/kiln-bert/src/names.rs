use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// The current parameter in the traversal of a module, with Hugging Face's name:
/// `encoder.layer.0.attention.self.query.weight`.
///
/// A visitor or mapper calls `enter` and `exit` from its `enter_module` and `exit_module`.
#[derive(Clone, Debug, Default)]
pub struct ParameterPath {
    segments: Vec<String>,
    containers: Vec<String>,
}

impl ParameterPath {
    /// Enters a field: its name, and burn's name of the container that has the field.
    pub fn enter(&mut self, name: &str, container: &str) {
        let segment = match (name, container) {
            ("self_attention", _) => "self",
            ("layer_norm", _) => "LayerNorm",
            // An adapter's parameters are named as if they were the layer's own.
            ("adapter", "Struct:Linear") => "",
            // The enum of both forms of layers adds nothing to the name.
            (_, "Enum:EncoderLayer") => "",
            ("lora_a", _) => "lora_A",
            ("lora_b", _) => "lora_B",
            ("gamma", "Struct:LayerNorm") => "weight",
            ("beta", "Struct:LayerNorm") => "bias",
            _ => name,
        };
        self.segments.push(segment.to_owned());
        self.containers.push(container.to_owned());
    }

    /// Leaves the field that was entered last.
    pub fn exit(&mut self) {
        self.segments.pop();
        self.containers.pop();
    }

    /// The name of the current parameter.
    pub fn name(&self) -> String {
        let segments: Vec<&str> =
            self.segments.iter().map(String::as_str).filter(|segment| !segment.is_empty()).collect();
        segments.join(".")
    }

    /// Whether the checkpoint stores this parameter transposed: PyTorch stores a linear layer's weight as `[out, in]`.
    pub fn is_transposed(&self) -> bool {
        let [.., segment] = self.segments.as_slice() else { return false };
        let is_linear = |container: &String| ["Struct:Linear", "Struct:LoraFactor"].contains(&container.as_str());
        segment == "weight" && self.containers.last().is_some_and(is_linear)
    }

    /// Whether weight decay skips this parameter: biases and layer normalization, as in BERT's training.
    pub fn is_exempt_from_decay(&self) -> bool {
        self.segments.last().is_some_and(|segment| segment == "bias")
            || self.containers.last().is_some_and(|container| container == "Struct:LayerNorm")
    }
}

/// A parameter as a checkpoint stores it.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedParameter {
    /// Its name in a checkpoint.
    pub name: String,
    /// Its shape in a checkpoint: `[out, in]` for a linear layer's weight.
    pub shape: Vec<usize>,
    /// The values, row-major, in that shape.
    pub values: Vec<f32>,
}

/// Every parameter of a module, in the order of its fields, copied to the host.
pub fn parameters<M: Module>(module: &M) -> Vec<NamedParameter> {
    parameters_where(module, &|_| true)
}

/// The [`parameters`] for whose names `is_wanted` returns true.
pub fn parameters_where<M: Module>(module: &M, is_wanted: &dyn Fn(&str) -> bool) -> Vec<NamedParameter> {
    let mut collector = Collector { path: ParameterPath::default(), is_wanted, parameters: Vec::new() };
    module.visit(&mut collector);
    collector.parameters
}

struct Collector<'a> {
    is_wanted: &'a dyn Fn(&str) -> bool,
    path: ParameterPath,
    parameters: Vec<NamedParameter>,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.name();
        if !(self.is_wanted)(&name) {
            return;
        }
        let mut tensor = param.val().inner();
        if self.path.is_transposed() {
            tensor = tensor.swap_dims(0, 1);
        }
        let shape = tensor.dims().to_vec();
        let values = tensor.into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32");
        self.parameters.push(NamedParameter { name, shape, values });
    }
}
