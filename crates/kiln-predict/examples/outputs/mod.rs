use burn::tensor::{Device, Int, Tensor};
use kiln_heads::{Network, inputs};
use kiln_predict::Predictor;
use kiln_tokenize::{Encoding, pad};
use serde_json::{Map, Value, json};

/// The ids of a row and the network's outputs for it, row-major.
pub fn outputs(predictor: &Predictor, encoding: Encoding, device: &Device) -> Map<String, Value> {
    let mut outputs = Map::new();
    outputs.insert("input_ids".to_owned(), json!(encoding.input_ids));
    outputs.insert("token_type_ids".to_owned(), json!(encoding.token_type_ids));
    let seq = encoding.input_ids.len();
    let row = inputs(&pad(&[encoding], &[0], predictor.tokenizer().pad_token_id()), device);
    let every_token = Tensor::<1, Int>::arange(0..seq as i64, device);
    let mut insert = |name: &str, logits: Tensor<2>| {
        let logits = logits.into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32");
        outputs.insert(name.to_owned(), json!(logits));
    };
    match predictor.network() {
        Network::SequenceClassification { model, .. } => insert("logits", model.forward(row)),
        Network::TokenClassification { model, .. } => insert("logits", model.forward(row, every_token)),
        Network::QuestionAnswering { model } => {
            let [start, end] = model.forward(row);
            insert("start_logits", start);
            insert("end_logits", end);
        }
        Network::MaskedLm { model } => {
            let output = model.forward(row, every_token);
            match output.seq_relationship {
                None => insert("logits", output.predictions),
                Some(next_sentence) => {
                    insert("prediction_logits", output.predictions);
                    insert("seq_relationship_logits", next_sentence);
                }
            }
        }
    }
    outputs
}
