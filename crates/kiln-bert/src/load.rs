use std::collections::BTreeSet;
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use kiln_kernels::{PackedWeights, Precision, Products, StoredTable, is_fused};

use crate::family::FAMILIES;
use crate::names::ParameterPath;
use crate::weights::FileWeight;
use crate::{Bert, BertConfig, Error, Linear, Weights};

/// A module with a checkpoint's weights, and the names of the tensors that it has no parameter for.
#[derive(Clone, Debug)]
pub struct Loaded<M> {
    /// The module.
    pub module: M,
    /// Tensors of the checkpoint that were not used, sorted.
    pub unused: Vec<String>,
}

/// Groups tensors by their names, and counts the tensors of each group. Each encoder layer is a group. All other tensors
/// are grouped by the first component of their names.
pub fn groups(names: &[String]) -> Vec<(String, usize)> {
    let mut groups: Vec<(String, usize)> = Vec::new();
    for name in names {
        let name = bert_name(name);
        let group = match name.split('.').collect::<Vec<_>>().as_slice() {
            ["encoder", "layer", layer, ..] => format!("encoder.layer.{layer}"),
            parts => parts[0].to_owned(),
        };
        match groups.iter_mut().find(|(other, _)| *other == group) {
            Some((_, tensors)) => *tensors += 1,
            None => groups.push((group, 1)),
        }
    }
    groups
}

/// The number of encoder layers that these tensors belong to. For unused tensors, these are the layers beyond those of the
/// config.
pub fn layers<'a>(names: impl IntoIterator<Item = &'a str>) -> usize {
    count_layers(names.into_iter().map(bert_name))
}

/// The part of a tensor's name before the layer number, in BERT.
const LAYER: &str = "encoder.layer.";

/// The number of layers that these tensors belong to, by BERT's names.
fn count_layers(names: impl Iterator<Item = String>) -> usize {
    let layer = |name: String| Some(name.strip_prefix(LAYER)?.split('.').next()?.to_owned());
    names.filter_map(layer).collect::<BTreeSet<_>>().len()
}

/// Converts an encoder tensor's name in a checkpoint of any family to BERT's name.
fn bert_name(name: &str) -> String {
    match FAMILIES.into_iter().find_map(|family| Some((family, name.strip_prefix(family.prefix)?))) {
        Some((family, name)) => family.bert_name(name, 1),
        // The names of an encoder without a head have no prefix; those of its layers identify its family.
        None => {
            let mut renamed = FAMILIES.into_iter().map(|family| family.bert_name(name, 1));
            renamed.find(|name| name.starts_with(LAYER)).unwrap_or_else(|| name.to_owned())
        }
    }
}

/// Loads an encoder from a checkpoint, whether or not its tensor names have the family's prefix. A checkpoint without a
/// pooler results in a model without one. Layers beyond those of the config are unused, as in transformers; [`layers`]
/// counts them.
///
/// # Errors
/// When a tensor is missing, has another shape than the config says, or holds a number that is not finite. The error names
/// all missing tensors.
pub fn load_bert(config: &BertConfig, weights: &Weights, device: &Device) -> Result<Loaded<Bert>, Error> {
    let bert = bert_for(config, weights, device)?;
    let tensor_name = tensor_names(config, weights);
    load_as(bert, weights, &|name| Some(tensor_name(name)))
}

/// The part of an encoder that stays in its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InFile {
    /// Nothing.
    #[default]
    Nothing,
    /// The word embeddings: each batch reads the rows of its tokens.
    Words,
    /// The word embeddings, and the weights of the layers' linear layers. Each is read when it is used.
    WordsAndLayers,
}

/// [`load_bert`] for an encoder with a frozen part that stays in its file. Only the `flex` backend leaves tensors in the
/// file, and only those in a form that can be read in place.
/// [`BertEmbeddings::read_words`](crate::BertEmbeddings::read_words) converts the word embeddings to a tensor.
///
/// # Errors
/// The same as [`load_bert`].
pub fn load_bert_in_file(
    config: &BertConfig,
    weights: &Arc<Weights>,
    in_file: InFile,
    device: &Device,
) -> Result<Loaded<Bert>, Error> {
    /// Smaller tables are loaded into memory: the steps of a small encoder are too short for reading rows from a file.
    const LARGE: usize = 4 << 20;
    let mut bert = bert_for(config, weights, device)?;
    let tensor_name = tensor_names(config, weights);
    let mut stored = BTreeSet::new();
    if in_file != InFile::Nothing && is_fused(device) {
        let (name, shape) = (tensor_name(WORDS), [config.vocab_size, config.embedding_size()]);
        if shape[0].saturating_mul(shape[1]) >= LARGE
            && let Some(rows) = weights.rows(&name, shape)?
        {
            bert.embeddings = bert.embeddings.with_stored_words(StoredTable::elsewhere(Arc::new(rows), shape));
            stored.insert(name);
        }
        if in_file == InFile::WordsAndLayers {
            let names = leave_layers(&mut bert, weights, &tensor_name)?;
            names.iter().try_for_each(|name| weights.check_finite(name))?;
            stored.extend(names);
        }
    }
    load_rest(bert, weights, &tensor_name, &stored)
}

/// Leaves the weights of linear layers in their file, if they are stored in a form that can be used directly. Returns the
/// tensors' names.
fn leave_layers(
    bert: &mut Bert,
    weights: &Arc<Weights>,
    tensor_name: &impl Fn(&str) -> String,
) -> Result<BTreeSet<String>, Error> {
    let mut stored = BTreeSet::new();
    for (name, linear) in encoder_layers(bert) {
        let name = tensor_name(&name);
        if let Some(weight) = FileWeight::find(weights, &name, linear.shape())? {
            *linear = linear.clone().with_stored_weight(Arc::new(weight));
            stored.insert(name);
        }
    }
    Ok(stored)
}

/// Loads the tensors that do not stay in the file.
fn load_rest(
    bert: Bert,
    weights: &Weights,
    tensor_name: &impl Fn(&str) -> String,
    stored: &BTreeSet<String>,
) -> Result<Loaded<Bert>, Error> {
    let are_words_stored = bert.embeddings.stored_words().is_some();
    let is_wanted = |name: &str| name != WORDS || !are_words_stored;
    let mut loaded = load_as(bert, weights, &|name| is_wanted(name).then(|| tensor_name(name)))?;
    loaded.unused.retain(|name| !stored.contains(name) && !weights.belongs_to_another(name));
    Ok(loaded)
}

/// The prefix of the encoder's tensor names in a checkpoint: its family's prefix, or nothing.
fn prefix_of(config: &BertConfig, weights: &Weights) -> &'static str {
    let family = config.family();
    if weights.names().any(|name| name.starts_with(family.prefix)) { family.prefix } else { "" }
}

/// Returns a function that converts BERT's name of an encoder parameter to the tensor's name in a checkpoint.
pub fn tensor_names(config: &BertConfig, weights: &Weights) -> impl Fn(&str) -> String {
    let prefix = prefix_of(config, weights);
    move |name| format!("{prefix}{}", config.tensor_name(name))
}

/// A fresh encoder with the modules that a checkpoint has.
fn bert_for(config: &BertConfig, weights: &Weights, device: &Device) -> Result<Bert, Error> {
    let (family, prefix) = (config.family(), prefix_of(config, weights));
    let found = count_layers(weights.names().map(|name| config.bert_name(name.strip_prefix(prefix).unwrap_or(name))));
    let expected = config.distinct_layers();
    // This is checked before memory is allocated, because a config may contain any number.
    if found < expected {
        let key = if family.shares_layers { "num_hidden_groups" } else { "num_hidden_layers" };
        return Err(Error::Layers { path: weights.path().to_owned(), key, found, expected });
    }
    let mut bert = config.init(device);
    if weights.shape(&tensor_names(config, weights)("pooler.dense.weight")).is_none() {
        bert.pooler = None;
    }
    if let Some(pooler) = &mut bert.pooler {
        pooler.is_fresh = false;
    }
    Ok(bert)
}

/// [`load_bert`] for inference, with products in this precision. On the `flex` backend, the weights of linear layers are
/// packed directly from their file, and word embeddings are read in place, without an f32 copy. Their numbers are not
/// checked to be finite.
///
/// # Errors
/// The same as [`load_bert`].
pub fn load_bert_stored(
    config: &BertConfig,
    weights: &Arc<Weights>,
    precision: Precision,
    device: &Device,
) -> Result<Loaded<Bert>, Error> {
    let mut bert = bert_for(config, weights, device)?;
    let tensor_name = tensor_names(config, weights);
    let mut stored = BTreeSet::new();
    if is_fused(device) {
        stored = leave_layers(&mut bert, weights, &tensor_name)?;
        let (name, shape) = (tensor_name(WORDS), [config.vocab_size, config.embedding_size()]);
        if let Some(values) = weights.stored(&name)? {
            weights.check_shape(&name, &shape)?;
            bert.embeddings = bert.embeddings.with_stored_words(StoredTable::new(values, shape));
            stored.insert(name);
        }
    }
    let mut loaded = load_rest(bert, weights, &tensor_name, &stored)?;
    loaded.module.products = Products { precision, packed: Some(PackedWeights::default()), ..Products::default() };
    Ok(loaded)
}

/// The names of the tensors that [`load_bert_stored`] uses in their stored form: the weights of the encoder's linear
/// layers, and the word embeddings.
///
/// # Errors
/// When the checkpoint has fewer layers than the config says.
pub fn stored_tensors(config: &BertConfig, weights: &Weights, device: &Device) -> Result<Vec<String>, Error> {
    let mut bert = bert_for(config, weights, device)?;
    let layers = encoder_layers(&mut bert).into_iter().map(|(name, _)| name);
    let tensor_name = tensor_names(config, weights);
    Ok(layers.chain([WORDS.to_owned()]).map(|name| tensor_name(&name)).collect())
}

const WORDS: &str = "embeddings.word_embeddings.weight";

/// The linear layers of the encoder's layers, with BERT's names of their weights.
fn encoder_layers(bert: &mut Bert) -> Vec<(String, &mut Linear)> {
    let layers = bert.linear_layers().into_iter().filter(|(name, _)| name.starts_with("encoder."));
    layers.map(|(name, linear)| (format!("{name}.weight"), linear)).collect()
}

/// Loads every parameter of a module from the tensor named `prefix` plus the parameter's name.
///
/// # Errors
/// When a tensor is missing, has another shape than the module's, or holds a number that is not finite. The error names
/// all missing tensors.
pub fn load<M: Module>(module: M, weights: &Weights, prefix: &str) -> Result<Loaded<M>, Error> {
    load_as(module, weights, &|name| Some(format!("{prefix}{name}")))
}

/// Loads each parameter from the tensor that `tensor_name` returns for its name. If it returns none, the parameter keeps
/// its value.
///
/// # Errors
/// The same as [`load`].
pub fn load_as<M: Module>(
    module: M,
    weights: &Weights,
    tensor_name: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded<M>, Error> {
    let mut loader = Loader {
        weights,
        tensor_name,
        path: ParameterPath::default(),
        used: BTreeSet::new(),
        missing: Vec::new(),
        error: None,
    };
    let module = module.map(&mut loader);
    if let Some(error) = loader.error {
        return Err(error);
    }
    if !loader.missing.is_empty() {
        return Err(Error::Missing { path: weights.path().to_owned(), names: loader.missing });
    }
    let unused = weights.names().filter(|name| !loader.used.contains(*name)).map(str::to_owned).collect();
    Ok(Loaded { module, unused })
}

/// Draws every weight that has not been drawn yet, in the order of the module's fields, so that a seed determines all of
/// them.
pub fn initialize<M: Module>(module: &M) {
    struct Draw;
    impl ModuleVisitor for Draw {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let _ = param.val();
        }
    }
    module.visit(&mut Draw);
}

struct Loader<'a> {
    weights: &'a Weights,
    tensor_name: &'a dyn Fn(&str) -> Option<String>,
    path: ParameterPath,
    used: BTreeSet<String>,
    missing: Vec<String>,
    error: Option<Error>,
}

impl Loader<'_> {
    /// The values for a parameter, in the module's layout; none when it is missing.
    fn values(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>, Error> {
        let transposed = self.path.is_transposed();
        let expected: Vec<usize> = if transposed { shape.iter().rev().copied().collect() } else { shape.to_vec() };
        match self.weights.shape(name) {
            None => Ok(None),
            Some(found) if found == expected => {
                let Some(values) = self.weights.read(name)? else { return Ok(None) };
                if !transposed {
                    return Ok(Some(values));
                }
                let mut turned = vec![0.0; values.len()];
                transpose(&values, [shape[1], shape[0]], &mut turned);
                Ok(Some(turned))
            }
            Some(found) => Err(Error::Shape {
                path: self.weights.path().to_owned(),
                name: name.to_owned(),
                found: found.to_vec(),
                expected,
            }),
        }
    }
}

/// Writes the transpose of a row-major matrix `[rows, columns]`, in tiles that fit in cache.
pub(crate) fn transpose(values: &[f32], [rows, columns]: [usize; 2], transposed: &mut [f32]) {
    const TILE: usize = 32;
    for row in (0..rows).step_by(TILE) {
        for column in (0..columns).step_by(TILE) {
            for r in row..rows.min(row + TILE) {
                for c in column..columns.min(column + TILE) {
                    transposed[c * rows + r] = values[r * columns + c];
                }
            }
        }
    }
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(name) = (self.tensor_name)(&self.path.name()) else { return param };
        let shape = param.lazy_shape();
        match self.values(&name, &shape.to_vec()) {
            Ok(Some(values)) => {
                self.used.insert(name);
                let tensor = Tensor::from_data(TensorData::new(values, shape), &param.lazy_device());
                let id = param.id;
                param.transform_for_load(tensor, id)
            }
            Ok(None) => {
                self.missing.push(name);
                param
            }
            Err(error) => {
                self.error.get_or_insert(error);
                param
            }
        }
    }
}
