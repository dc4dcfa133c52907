//! The families of encoders, as data: a family is a file in this folder and an entry of [`FAMILIES`].

mod albert;
mod bert;
mod camembert;
mod distilbert;
mod electra;
mod ernie;
mod modernbert;
mod roberta;
mod xlm_roberta;

use kiln_kernels::Activation;
use serde_json::{Map, Value};

use crate::HiddenAct;
use crate::numbers::remove_nulls;
use bert::BERT;

/// Where a family of encoders differs from BERT: names, rules of the embeddings, and the shape of its heads. What it has in
/// common with BERT is computed by the same code.
#[derive(Debug)]
pub struct Family {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// What the names of the encoder's tensors begin with, in a checkpoint of a whole model.
    pub prefix: &'static str,
    /// What the names of transformers' classes begin with: `Bert` of `BertForTokenClassification`.
    pub class: &'static str,
    /// Keys of `config.json` that have another name than BERT's.
    pub config_keys: &'static [Rename],
    /// Parts of tensors' names that differ from BERT's: each is replaced, in this order, where a name begins with it or has it
    /// after a dot.
    pub tensors: &'static [Rename],
    /// Where positions begin.
    pub positions: Positions,
    /// Whether the embeddings tell segments apart.
    pub has_segments: bool,
    /// Whether there may be embeddings of kinds of tasks, as `use_task_id` says.
    pub has_task_types: bool,
    /// Whether a linear layer leads from the embeddings, which may be narrower, to the hidden states.
    pub projection: Projection,
    /// Whether layers have their weights in common, as `num_hidden_groups` and `inner_group_num` say.
    pub shares_layers: bool,
    /// What a config means that lacks a key, where it is something else than in BERT: a JSON object of BERT's keys.
    pub defaults: &'static str,
    /// What a config means whatever it says: a JSON object of BERT's keys.
    pub fixed: &'static str,
    /// The activation before the decoder of masked words, where it is another one than in the layers.
    pub head_act: Option<HiddenAct>,
    /// What reads the first token's hidden state before the output layer of a sentence-level head.
    pub sentence_head: SentenceHead,
    /// Whether transformers' heads on tokens have the layer of the sentence-level head before their output layer too.
    pub has_token_head: bool,
    /// What the names of the output layer for answers begin with.
    pub answer_output: &'static str,
    /// Whether layers normalize what they read, and are ModernBERT's otherwise too.
    pub has_pre_norm: bool,
    /// Whether the head for masked words is BERT's, up to the names.
    pub has_masked_lm: bool,
    /// Whether the pooler was trained to tell whether one sentence follows another.
    pub has_next_sentence: bool,
}

/// A name of BERT's and what a family has in its place.
#[derive(Clone, Copy, Debug)]
pub struct Rename {
    /// BERT's.
    pub bert: &'static str,
    /// The family's.
    pub family: &'static str,
}

/// Where positions begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// At 0.
    Zero,
    /// After the id of the padding token: the rows up to it are never read.
    AfterPadding,
    /// Nowhere: no position is embedded, and queries and keys are turned by theirs.
    Rotary,
}

/// When embeddings are projected to the width of the hidden states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    /// Never: they have that width.
    Never,
    /// Where `embedding_size` is another width.
    OtherWidth,
    /// Always.
    Always,
}

/// What stands between the first token's hidden state and the output layer of transformers' own sentence-level head: a linear
/// layer and an activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SentenceHead {
    /// BERT's pooler, which belongs to the encoder: tanh.
    Pooler,
    /// A layer of the head, fresh in every fine-tuning.
    Own {
        /// What the names of its tensors begin with.
        dense: &'static str,
        /// What the names of a normalization behind the activation begin with, if there is one.
        norm: Option<&'static str>,
        /// What the names of the output layer's tensors begin with.
        output: &'static str,
        /// After the linear layer.
        activation: Activation,
        /// Whether there is a dropout before it.
        has_dropout: bool,
    },
}

/// All families; the first is meant where a config names none.
pub const FAMILIES: [&Family; 9] = [
    &BERT,
    &albert::ALBERT,
    &ernie::ERNIE,
    &roberta::ROBERTA,
    &xlm_roberta::XLM_ROBERTA,
    &camembert::CAMEMBERT,
    &distilbert::DISTILBERT,
    &electra::ELECTRA,
    &modernbert::MODERNBERT,
];

/// What stands before the `model_type` of an encoder under a head that transformers has no class for, so that it does not
/// load it under a random one.
const OWN_HEAD: &str = "kiln-";

/// The families' `model_type`s, for a message.
pub(crate) fn known_model_types() -> String {
    let names: Vec<String> = FAMILIES.iter().map(|family| format!("\"{}\"", family.model_type)).collect();
    format!("one of {}", names.join(", "))
}

impl Family {
    /// The family of a `model_type`, none if there is none.
    pub fn of_model_type(model_type: &str) -> Option<&'static Self> {
        let model_type = model_type.strip_prefix(OWN_HEAD).unwrap_or(model_type);
        FAMILIES.into_iter().find(|family| family.model_type == model_type)
    }

    /// `model_type` of an encoder under a head that transformers has no class for.
    pub fn own_model_type(&self) -> String {
        format!("{OWN_HEAD}{}", self.model_type)
    }

    /// The family's key of `config.json` for one of BERT's.
    pub(crate) fn config_key<'a>(&'a self, bert: &'a str) -> &'a str {
        self.config_keys.iter().find(|key| key.bert == bert).map_or(bert, |key| key.family)
    }

    /// BERT's keys in place of the family's, and what the family has where a config does not say it.
    pub(crate) fn rename_keys(&self, json: &mut Map<String, Value>) {
        for Rename { bert, family } in self.config_keys {
            if let Some(value) = json.remove(*family) {
                json.insert((*bert).to_owned(), value);
            }
        }
        remove_nulls(json);
        let object = |json| serde_json::from_str::<Map<String, Value>>(json).expect("a family's keys are JSON");
        for (key, value) in object(self.defaults) {
            json.entry(key).or_insert(value);
        }
        json.extend(object(self.fixed));
        if !self.has_segments {
            json.remove("type_vocab_size");
        }
        if self.projection == Projection::Never {
            json.remove("embedding_size");
        }
    }

    /// The family's keys in place of BERT's.
    pub(crate) fn restore_keys(&self, json: &mut Map<String, Value>) {
        for Rename { bert, family } in self.config_keys {
            if let Some(value) = json.remove(*bert) {
                json.insert((*family).to_owned(), value);
            }
        }
        if !self.has_segments {
            json.remove("type_vocab_size");
        }
        if self.projection != Projection::Never
            && let Some(width) = json.get("hidden_size").cloned()
        {
            json.entry("embedding_size").or_insert(width);
        }
    }

    /// Whether each layer has weights of its own and computes as the others, so that some can be left out.
    pub fn has_independent_layers(&self) -> bool {
        !self.shares_layers && !self.has_pre_norm
    }

    /// The family's name of a parameter, from BERT's; where layers are shared, a group has `group_size` of them.
    pub(crate) fn tensor_name(&self, name: &str, group_size: usize) -> String {
        let renamed = |name: String, Rename { bert, family }: &Rename| replace_part(name, bert, family);
        let name = self.tensors.iter().fold(name.to_owned(), renamed);
        if self.shares_layers { albert::with_group(&name, group_size) } else { name }
    }

    /// BERT's name of a parameter, from the family's.
    pub(crate) fn bert_name(&self, name: &str, group_size: usize) -> String {
        let name = if self.shares_layers { albert::without_group(name, group_size) } else { name.to_owned() };
        let renamed = |name: String, Rename { bert, family }: &Rename| replace_part(name, family, bert);
        self.tensors.iter().fold(name, renamed)
    }
}

/// The name with `to` in place of `from`, if it begins with that or has it after a dot.
fn replace_part(name: String, from: &str, to: &str) -> String {
    let at = if name.starts_with(from) { Some(0) } else { name.find(&format!(".{from}")).map(|at| at + 1) };
    match at {
        Some(at) => format!("{}{to}{}", &name[..at], &name[at + from.len()..]),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back() {
        let names = [
            "embeddings.word_embeddings.weight",
            "encoder.layer.11.attention.self.query.weight",
            "encoder.layer.0.attention.output.dense.bias",
            "encoder.layer.0.attention.output.LayerNorm.weight",
            "encoder.layer.0.intermediate.dense.weight",
            "encoder.layer.0.output.dense.weight",
            "encoder.layer.0.output.LayerNorm.bias",
            "embeddings_project.weight",
            "pooler.dense.weight",
            "cls.predictions.transform.dense.weight",
            "cls.predictions.transform.LayerNorm.bias",
            "cls.predictions.bias",
            "cls.predictions.decoder.weight",
        ];
        for family in FAMILIES {
            for name in names {
                for group_size in [1, 3] {
                    let of_family = family.tensor_name(name, group_size);
                    assert_eq!(family.bert_name(&of_family, group_size), name, "{}", family.model_type);
                }
            }
        }
        let distilbert = Family::of_model_type("distilbert").expect("it is one of them");
        for (bert, family) in [
            (names[1], "transformer.layer.11.attention.q_lin.weight"),
            (names[2], "transformer.layer.0.attention.out_lin.bias"),
            (names[3], "transformer.layer.0.sa_layer_norm.weight"),
            (names[4], "transformer.layer.0.ffn.lin1.weight"),
            (names[5], "transformer.layer.0.ffn.lin2.weight"),
            (names[6], "transformer.layer.0.output_layer_norm.bias"),
            ("cls.predictions.bias", "vocab_projector.bias"),
        ] {
            assert_eq!(distilbert.tensor_name(bert, 1), family);
        }
        let albert = Family::of_model_type("albert").expect("it is one of them");
        for (bert, family) in [
            (names[1], "encoder.albert_layer_groups.3.albert_layers.2.attention.query.weight"),
            (names[2], "encoder.albert_layer_groups.0.albert_layers.0.attention.dense.bias"),
            (names[3], "encoder.albert_layer_groups.0.albert_layers.0.attention.LayerNorm.weight"),
            (names[4], "encoder.albert_layer_groups.0.albert_layers.0.ffn.weight"),
            (names[5], "encoder.albert_layer_groups.0.albert_layers.0.ffn_output.weight"),
            (names[6], "encoder.albert_layer_groups.0.albert_layers.0.full_layer_layer_norm.bias"),
            ("embeddings_project.bias", "encoder.embedding_hidden_mapping_in.bias"),
            ("pooler.dense.bias", "pooler.bias"),
            ("cls.predictions.transform.LayerNorm.bias", "predictions.LayerNorm.bias"),
        ] {
            assert_eq!(albert.tensor_name(bert, 3), family);
        }
        let modernbert = Family::of_model_type("modernbert").expect("it is one of them");
        for (bert, family) in [
            ("embeddings.word_embeddings.weight", "embeddings.tok_embeddings.weight"),
            ("encoder.layer.7.attn.wqkv.weight", "layers.7.attn.Wqkv.weight"),
            ("encoder.layer.7.mlp.wo.bias", "layers.7.mlp.Wo.bias"),
            ("final_norm.weight", "final_norm.weight"),
            ("cls.predictions.transform.LayerNorm.weight", "head.norm.weight"),
            ("cls.predictions.decoder.weight", "decoder.weight"),
        ] {
            assert_eq!(
                (modernbert.tensor_name(bert, 1), modernbert.bert_name(family, 1)),
                (family.to_owned(), bert.to_owned())
            );
        }
    }

    #[test]
    fn a_head_of_its_own_keeps_the_family() {
        for family in FAMILIES {
            let found = Family::of_model_type(&family.own_model_type()).expect("it is known");
            assert_eq!(found.model_type, family.model_type);
        }
        assert!(Family::of_model_type("llama").is_none());
    }
}
