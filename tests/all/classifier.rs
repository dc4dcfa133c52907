//! A tiny classifier, with a hidden layer.

use burn::tensor::Device;
use kiln_heads::{ClassificationHeadConfig, Pooling, SequenceClassifier};

use crate::tiny::bert;

pub fn classifier(pooling: Pooling, device: &Device) -> SequenceClassifier {
    let head = ClassificationHeadConfig {
        hidden_size: 24,
        hidden_layers: vec![7],
        num_labels: 3,
        dropout: 0.0,
        initializer_range: 0.3,
    };
    let mut bert = bert(device);
    if pooling != Pooling::Pooler {
        bert.pooler = None;
    }
    let head = head.init(device);
    kiln_bert::initialize(&head);
    SequenceClassifier { bert, head, pooling }
}
