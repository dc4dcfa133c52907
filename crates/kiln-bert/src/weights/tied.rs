use std::collections::BTreeMap;

use crate::family::FAMILIES;

/// Parameters that the encoder or the head shares with the decoder of the masked language modeling head, by BERT's names.
const TIED: [[&str; 2]; 2] = [
    ["embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"],
    ["cls.predictions.bias", "cls.predictions.decoder.bias"],
];

/// Renames a tied parameter that the file contains by the decoder's name alone. `safetensors.torch.save_model` writes only
/// one of the two names: the first in alphabetical order.
pub(super) fn rename<T>(tensors: &mut BTreeMap<String, T>) {
    for family in FAMILIES {
        if !tensors.keys().any(|name| name.starts_with(family.prefix)) {
            continue;
        }
        for ([name, decoder], prefix) in TIED.into_iter().zip([family.prefix, ""]) {
            let name = format!("{prefix}{}", family.tensor_name(name, 1));
            if !tensors.contains_key(&name)
                && let Some(tensor) = tensors.remove(&family.tensor_name(decoder, 1))
            {
                tensors.insert(name, tensor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_with_the_decoder_s_name_alone_gets_the_other_name() {
        for (names, expected) in [
            (
                &["lm_head.bias", "lm_head.decoder.weight", "roberta.encoder.layer.0.output.dense.bias"][..],
                &[
                    "lm_head.bias",
                    "roberta.embeddings.word_embeddings.weight",
                    "roberta.encoder.layer.0.output.dense.bias",
                ][..],
            ),
            (
                &["decoder.bias", "decoder.weight", "model.final_norm.weight"],
                &["decoder.bias", "model.embeddings.tok_embeddings.weight", "model.final_norm.weight"],
            ),
            (
                &[
                    "bert.embeddings.word_embeddings.weight",
                    "cls.predictions.decoder.bias",
                    "cls.predictions.decoder.weight",
                ],
                &["bert.embeddings.word_embeddings.weight", "cls.predictions.bias", "cls.predictions.decoder.weight"],
            ),
            (&["decoder.weight", "x"], &["decoder.weight", "x"]),
        ] {
            let mut tensors = names.iter().map(|name| ((*name).to_owned(), ())).collect();
            rename(&mut tensors);
            let found: Vec<&String> = tensors.keys().collect();
            assert_eq!(found, expected);
        }
    }
}
