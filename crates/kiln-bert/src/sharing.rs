//! Layers that share weights, as in ALBERT.

use serde_json::Value;

use crate::BertConfig;

impl BertConfig {
    /// The number of groups of layers, each with its own weights. Without sharing, each layer is a group.
    fn groups(&self) -> usize {
        if self.family().shares_layers { self.size_of_group("num_hidden_groups") } else { self.num_hidden_layers }
    }

    /// The number of layers in a group.
    pub(crate) fn group_size(&self) -> usize {
        if self.family().shares_layers { self.size_of_group("inner_group_num") } else { 1 }
    }

    /// The value of a key that only ALBERT has; 1 if it is not a number.
    fn size_of_group(&self, key: &str) -> usize {
        self.extra.get(key).and_then(Value::as_u64).unwrap_or(1).max(1) as usize
    }

    /// The number of layers with their own weights.
    pub(crate) fn distinct_layers(&self) -> usize {
        self.groups().saturating_mul(self.group_size())
    }

    /// The distinct layers in the order of computation. Each of `num_hidden_layers` steps computes the layers of one
    /// group. The steps are divided evenly among the groups, rounded as in transformers.
    pub(crate) fn layer_order(&self) -> Vec<usize> {
        let (groups, size) = (self.groups(), self.group_size());
        let steps_of_group = self.num_hidden_layers as f64 / groups as f64;
        let group = |step: usize| (step as f64 / steps_of_group) as usize;
        (0..self.num_hidden_layers).flat_map(|step| (0..size).map(move |at| group(step) * size + at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// transformers: `group_idx = int(i / (num_hidden_layers / num_hidden_groups))`.
    #[test]
    fn groups_of_layers_divide_the_steps() {
        let albert = |groups: u64, size: u64| {
            let mut config = BertConfig { num_hidden_layers: 2, ..BertConfig::base() };
            config.extra.insert("model_type".to_owned(), "albert".into());
            config.extra.insert("num_hidden_groups".to_owned(), groups.into());
            config.extra.insert("inner_group_num".to_owned(), size.into());
            config.check(Path::new("config.json")).expect("a small ALBERT");
            config
        };
        assert_eq!(albert(1, 1).layer_order(), [0, 0]);
        assert_eq!(albert(2, 2).layer_order(), [0, 1, 2, 3]);
        assert_eq!(albert(1, 3).layer_order(), [0, 1, 2, 0, 1, 2]);
        assert_eq!(albert(4, 1).layer_order(), [0, 2], "two groups have nothing to do");
        let bert = BertConfig { num_hidden_layers: 2, ..BertConfig::base() };
        assert_eq!(bert.layer_order(), [0, 1]);
    }
}
