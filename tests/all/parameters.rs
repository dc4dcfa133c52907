use burn::module::Module;
use kiln_backend::{Backend, Flex};
use kiln_bert::BertConfig;

#[test]
fn published_sizes() {
    let device = Flex::device(0);
    let chinese = BertConfig { vocab_size: 21_128, ..BertConfig::base() };
    assert_eq!(chinese.init(&device).num_params(), 102_267_648, "bert-base-chinese with pooler");
    assert_eq!(BertConfig::large().init(&device).num_params(), 335_141_888, "bert-large-uncased with pooler");
}
