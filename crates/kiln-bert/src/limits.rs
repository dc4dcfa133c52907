//! Limits on the size of a model. A config may contain any number, and memory is allocated accordingly.

use std::path::Path;

use crate::{BertConfig, Error};

/// The most parameters of a valid config: twelve times those of bert-large.
pub const MOST_PARAMETERS: u128 = 4_000_000_000;
/// The most layers of a valid config: forty times those of bert-large.
const MOST_LAYERS: usize = 1_000;

impl BertConfig {
    /// The number of parameters of the embeddings, the encoder and the pooler.
    pub fn num_parameters(&self) -> u128 {
        if self.family().has_pre_norm {
            return self.pre_norm_parameters();
        }
        let [hidden, intermediate, layers] =
            [self.hidden_size, self.intermediate_size, self.distinct_layers()].map(|size| size as u128);
        let width = self.embedding_size() as u128;
        let segments = if self.family().has_segments { self.type_vocab_size } else { 0 };
        let tasks = self.task_types().unwrap_or(0);
        let entries = [self.vocab_size, self.max_position_embeddings, segments, tasks].map(|size| size as u128);
        // Products and sums saturate instead of overflowing.
        let linear = |input: u128, output: u128| input.saturating_add(1).saturating_mul(output);
        let norm = 2 * hidden;
        let attention = linear(hidden, hidden).saturating_mul(4).saturating_add(norm);
        let feed_forward =
            linear(hidden, intermediate).saturating_add(linear(intermediate, hidden)).saturating_add(norm);
        let entries = entries.iter().fold(0u128, |sum, entries| sum.saturating_add(*entries));
        let project = if self.projects_embeddings() { linear(width, hidden) } else { 0 };
        let embeddings = entries.saturating_add(2).saturating_mul(width).saturating_add(project);
        let encoder = attention.saturating_add(feed_forward).saturating_mul(layers);
        embeddings.saturating_add(encoder).saturating_add(linear(hidden, hidden))
    }

    /// The field that adds the most parameters, its value, and the number of these parameters.
    fn largest_part(&self) -> (&'static str, usize, u128) {
        let [hidden, layers] = [self.hidden_size, self.distinct_layers()].map(|size| size as u128);
        let parts = [
            ("vocab_size", self.vocab_size, hidden),
            ("max_position_embeddings", self.max_position_embeddings, hidden),
            ("type_vocab_size", self.type_vocab_size, hidden),
            ("intermediate_size", self.intermediate_size, hidden.saturating_mul(2 * layers)),
            ("hidden_size", self.hidden_size, hidden.saturating_mul(4 * layers + 1)),
        ];
        let parts = parts.map(|(field, size, each)| (field, size, each.saturating_mul(size as u128)));
        parts.into_iter().max_by_key(|(_, _, parameters)| *parameters).expect("there are five parts")
    }

    /// Checks that the machine has the memory for fresh weights, before they are drawn one by one; `path` is only used in
    /// errors.
    ///
    /// # Errors
    /// When it does not, or the config is invalid.
    pub fn check_fresh(&self, path: &Path) -> Result<(), Error> {
        self.check(path)?;
        reserve(path, self.num_parameters())
    }

    /// An error about one of BERT's keys, with the family's name for it.
    pub(crate) fn error(&self, path: &Path, field: &str, found: String, expected: String) -> Error {
        Error::Config { path: path.to_owned(), field: self.family().config_key(field).to_owned(), found, expected }
    }

    /// Checks the number of layers and parameters; `path` is only used in errors.
    pub(crate) fn check_parameters(&self, path: &Path) -> Result<(), Error> {
        let error = |field: &str, found: String, expected: String| Err(self.error(path, field, found, expected));
        if self.num_hidden_layers > MOST_LAYERS {
            let expected = format!("at most {MOST_LAYERS}");
            return error("num_hidden_layers", self.num_hidden_layers.to_string(), expected);
        }
        let (layers, steps) = (self.distinct_layers(), self.num_hidden_layers.saturating_mul(self.group_size()));
        if layers.max(steps) > MOST_LAYERS {
            let field = if self.group_size() > 1 { "inner_group_num" } else { "num_hidden_groups" };
            let found = self.extra.get(field).map(ToString::to_string).unwrap_or_default();
            return error(
                field,
                format!("{found}, which makes {} layers", layers.max(steps)),
                format!("at most {MOST_LAYERS}"),
            );
        }
        if self.num_parameters() > MOST_PARAMETERS {
            let (field, size, parameters) = self.largest_part();
            let found = format!("{size}, which makes {parameters} of {} parameters", self.num_parameters());
            return error(field, found, format!("at most {MOST_PARAMETERS} parameters in all"));
        }
        Ok(())
    }
}

/// Allocates the memory of `parameters` f32 parameters and frees it at once, without writing to it.
///
/// # Errors
/// When the allocation fails.
pub fn reserve(path: &Path, parameters: u128) -> Result<(), Error> {
    let error = || Error::Memory { path: path.to_owned(), parameters };
    let count = usize::try_from(parameters).map_err(|_| error())?;
    Vec::<f32>::new().try_reserve_exact(count).map_err(|_| error())
}

#[cfg(test)]
mod tests {
    use kiln_backend::{Backend, Flex};

    use super::*;
    use crate::family::{FAMILIES, Projection};

    #[test]
    fn parameters_are_those_of_the_module() {
        let config = BertConfig {
            vocab_size: 9,
            hidden_size: 32,
            num_attention_heads: 4,
            num_hidden_layers: 2,
            ..BertConfig::base()
        };
        for family in FAMILIES {
            let mut config = config.clone();
            config.extra.insert("model_type".to_owned(), family.model_type.into());
            config.extra.insert("use_task_id".to_owned(), true.into());
            config.embedding_size = (family.projection != Projection::Never).then_some(24);
            config.extra.insert("num_hidden_groups".to_owned(), 2.into());
            config.extra.insert("inner_group_num".to_owned(), 3.into());
            let module = config.init(&Flex::device(0));
            let found = burn::module::Module::num_params(&module) as u128;
            assert_eq!(config.num_parameters(), found, "{}", family.model_type);
        }
    }

    #[test]
    fn fresh_weights_that_no_machine_holds_are_refused() {
        let path = Path::new("config.json");
        let message = reserve(path, 1 << 62).expect_err("2⁶⁴ bytes").to_string();
        assert!(message.contains("4611686018427387904 parameters"), "{message}");
        assert!(reserve(path, u128::MAX).is_err() && reserve(path, 1000).is_ok());
        let absurd = BertConfig { num_hidden_layers: 1 << 40, ..BertConfig::base() };
        assert!(absurd.check_fresh(path).expect_err("2⁴⁰ layers").to_string().contains("num_hidden_layers"));
    }
}
