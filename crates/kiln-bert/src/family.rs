//! The encoder families, as data: each family is a file in this folder and an entry of [`FAMILIES`].

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

/// The differences of an encoder family from BERT: names, rules of the embeddings, and the form of its heads. What it has
/// in common with BERT is computed by the same code.
#[derive(Debug)]
pub struct Family {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// Prefix of the encoder's tensor names in the checkpoint of a full model.
    pub prefix: &'static str,
    /// Prefix of transformers' class names: `Bert` in `BertForTokenClassification`.
    pub class: &'static str,
    /// Keys of `config.json` whose names differ from BERT's.
    pub config_keys: &'static [Rename],
    /// Parts of tensor names that differ from BERT's. Each is replaced, in this order, at the start of a name or after a
    /// dot.
    pub tensors: &'static [Rename],
    /// How positions are encoded.
    pub positions: Positions,
    /// Whether there are segment embeddings.
    pub has_segments: bool,
    /// Whether there are task type embeddings if `use_task_id` is set.
    pub has_task_types: bool,
    /// Whether a linear layer projects the embeddings, which may be narrower, to the hidden size.
    pub projection: Projection,
    /// Whether layers share weights, as `num_hidden_groups` and `inner_group_num` define.
    pub shares_layers: bool,
    /// Defaults for missing keys of a config that differ from BERT's defaults: a JSON object with BERT's keys.
    pub defaults: &'static str,
    /// Values that replace those of any config: a JSON object with BERT's keys.
    pub fixed: &'static str,
    /// The activation of the masked language modeling head, if it differs from that of the layers.
    pub head_act: Option<HiddenAct>,
    /// The layers before the output layer of a sentence-level head.
    pub sentence_head: SentenceHead,
    /// Whether transformers' token-level heads also have the layers of the sentence-level head before their output layer.
    pub has_token_head: bool,
    /// Prefix of the tensor names of the question answering output layer.
    pub answer_output: &'static str,
    /// Whether the layers are ModernBERT's, which normalize their inputs (pre-normalization).
    pub has_pre_norm: bool,
    /// Whether the masked language modeling head is BERT's, except for its tensor names.
    pub has_masked_lm: bool,
    /// Whether the pooler was pre-trained on next-sentence prediction.
    pub has_next_sentence: bool,
}

/// A name in BERT and the name that replaces it in a family.
#[derive(Clone, Copy, Debug)]
pub struct Rename {
    /// BERT's name.
    pub bert: &'static str,
    /// The family's name.
    pub family: &'static str,
}

/// How positions are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// Position embeddings, from row 0 on.
    Zero,
    /// Position embeddings, from the row after the padding token's id on. The rows before that id are never read.
    AfterPadding,
    /// Rotary position embeddings: queries and keys are rotated by their positions.
    Rotary,
}

/// When embeddings are projected to the width of the hidden states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    /// Never: they already have that width.
    Never,
    /// If `embedding_size` is a different width.
    OtherWidth,
    /// Always.
    Always,
}

/// The layers between the pooled hidden state and the output layer of transformers' own sentence-level head: a linear
/// layer and an activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SentenceHead {
    /// BERT's pooler, which belongs to the encoder. Its activation is tanh.
    Pooler,
    /// Layers of the head, which are fresh in every fine-tuning.
    Own {
        /// Prefix of the linear layer's tensor names.
        dense: &'static str,
        /// Prefix of the tensor names of a normalization after the activation, if there is one.
        norm: Option<&'static str>,
        /// Prefix of the output layer's tensor names.
        output: &'static str,
        /// The activation after the linear layer.
        activation: Activation,
        /// Whether there is dropout before the linear layer.
        has_dropout: bool,
    },
}

/// All families. The first is the default for a config that names none.
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

/// Prefix of the `model_type` of an encoder whose head has no class in transformers, so that transformers does not load
/// the encoder with a random head.
const OWN_HEAD: &str = "kiln-";

/// The families' `model_type`s, for an error message.
fn known_model_types() -> String {
    let names: Vec<String> = FAMILIES.iter().map(|family| format!("\"{}\"", family.model_type)).collect();
    format!("one of {}", names.join(", "))
}

impl Family {
    /// The family with this `model_type`, if there is one.
    pub fn of_model_type(model_type: &str) -> Option<&'static Self> {
        let model_type = model_type.strip_prefix(OWN_HEAD).unwrap_or(model_type);
        FAMILIES.into_iter().find(|family| family.model_type == model_type)
    }

    /// The family that a config names: by `model_type`, otherwise by the class in `architectures`. It is BERT if there is
    /// neither.
    ///
    /// # Errors
    /// When the family is unknown: the key, its value, and what was expected.
    pub(crate) fn of_config(config: &Map<String, Value>) -> Result<&'static Self, (&'static str, String, String)> {
        if let Some(model_type) = config.get("model_type").filter(|model_type| !model_type.is_null()) {
            let family = model_type.as_str().and_then(Self::of_model_type);
            return family.ok_or_else(|| ("model_type", model_type.to_string(), known_model_types()));
        }
        let Some(class) = config.get("architectures").and_then(|classes| classes.get(0)) else {
            return Ok(FAMILIES[0]);
        };
        let is_of = |family: &&Self| class.as_str().is_some_and(|class| class.starts_with(family.class));
        let expected = || format!("a class of a supported family, or the key `model_type`: {}", known_model_types());
        FAMILIES.into_iter().find(is_of).ok_or_else(|| ("architectures", class.to_string(), expected()))
    }

    /// The `model_type` of an encoder whose head has no class in transformers.
    pub fn own_model_type(&self) -> String {
        format!("{OWN_HEAD}{}", self.model_type)
    }

    /// The family's name for one of BERT's keys in `config.json`.
    pub(crate) fn config_key<'a>(&'a self, bert: &'a str) -> &'a str {
        self.config_keys.iter().find(|key| key.bert == bert).map_or(bert, |key| key.family)
    }

    /// Replaces the family's keys with BERT's, and adds the family's defaults and fixed values.
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

    /// Replaces BERT's keys with the family's.
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

    /// Whether each layer has its own weights and computes the same way as the others, so that layers can be removed.
    pub fn has_independent_layers(&self) -> bool {
        !self.shares_layers && !self.has_pre_norm
    }

    /// Converts BERT's name of a parameter to the family's. If layers are shared, a group has `group_size` layers.
    pub(crate) fn tensor_name(&self, name: &str, group_size: usize) -> String {
        let renamed = |name: String, Rename { bert, family }: &Rename| replace_part(name, bert, family);
        let name = self.tensors.iter().fold(name.to_owned(), renamed);
        if self.shares_layers { albert::with_group(&name, group_size) } else { name }
    }

    /// Converts the family's name of a parameter to BERT's.
    pub(crate) fn bert_name(&self, name: &str, group_size: usize) -> String {
        let name = if self.shares_layers { albert::without_group(name, group_size) } else { name.to_owned() };
        let renamed = |name: String, Rename { bert, family }: &Rename| replace_part(name, family, bert);
        self.tensors.iter().fold(name, renamed)
    }
}

/// Replaces `from` with `to` at the start of a name or after a dot.
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
    fn without_a_model_type_the_class_names_the_family() {
        let of = |config: &str| Family::of_config(&serde_json::from_str(config).expect("JSON"));
        for (config, model_type) in [
            (r#"{"architectures": ["RobertaForMaskedLM"]}"#, "roberta"),
            (r#"{"model_type": null, "architectures": ["XLMRobertaModel"]}"#, "xlm-roberta"),
            (r#"{"model_type": "bert", "architectures": ["RobertaForMaskedLM"]}"#, "bert"),
            ("{}", "bert"),
        ] {
            assert_eq!(of(config).expect(config).model_type, model_type, "{config}");
        }
        let (field, found, expected) = of(r#"{"architectures": ["NezhaModel"]}"#).expect_err("no such family");
        assert!(field == "architectures" && found == "\"NezhaModel\"" && expected.contains("\"bert\""), "{expected}");
    }

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
