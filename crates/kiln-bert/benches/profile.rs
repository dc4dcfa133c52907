//! The time of each operation in bert-base's forward pass, as a table for the report of `cargo xtask bench --profile`.
#![expect(clippy::print_stdout, reason = "a benchmark speaks to its driver")]

use std::time::Instant;

use burn::tensor::{Bool, Device, Distribution, Tensor};
use kiln_backend::{Backend, Flex};
use kiln_bert::{Bert, BertConfig, BertLayer, EncoderLayer, Inputs};
use kiln_kernels::{Activation, PackedWeights, Precision, Products, Queries};

const ROUNDS: usize = 9;
const VOCABULARY: usize = 21_128;
const SHAPES: [[usize; 2]; 2] = [[8, 128], [1, 20]];

fn main() {
    rayon::scope(|_| {
        let device = Flex::device(0);
        let bert = BertConfig { vocab_size: VOCABULARY, ..BertConfig::base() }.init(&device);
        kiln_bert::initialize(&bert);
        for shape @ [batch, seq] in SHAPES {
            println!("| bert-base, {batch} × {seq} tokens, ms | f32 | bf16 | int8 |\n|---|---|---|---|");
            let columns = [Precision::F32, Precision::Bf16, Precision::Int8].map(|precision| {
                let products = Products { precision, packed: Some(PackedWeights::default()), ..Products::default() };
                Profile { bert: &bert, shape, products, device: &device }.rows()
            });
            for ((name, f32), (bf16, int8)) in columns[0].iter().zip(columns[1].iter().zip(&columns[2])) {
                println!("| {name} | {:.2} | {:.2} | {:.2} |", f32 * 1e3, bf16.1 * 1e3, int8.1 * 1e3);
            }
            println!();
        }
    });
}

struct Profile<'a> {
    bert: &'a Bert,
    shape: [usize; 2],
    products: Products,
    device: &'a Device,
}

impl Profile<'_> {
    /// Seconds of the embeddings, of each operation in all layers, and of all layers together.
    fn rows(&self) -> Vec<(&'static str, f64)> {
        let [batch, seq] = self.shape;
        let states = |width| Tensor::<3>::random([batch, seq, width], Distribution::Uniform(-1.0, 1.0), self.device);
        let (hidden, wide) = (states(768), states(3072));
        let none = Tensor::<2, Bool>::full([batch, seq], false, self.device);
        let ids: Vec<i32> = (0..batch * seq).map(|at| ((at * 7919 + 13) % VOCABULARY) as i32).collect();
        let (ones, zeros) = (vec![1; batch * seq], vec![0; batch * seq]);
        let inputs = || Inputs::new(&ids, &ones, &zeros, self.shape, self.device);
        let products = &self.products;
        vec![
            ("embeddings", timed(|| done(self.bert.embeddings.forward(inputs().input_ids, inputs().token_type_ids)))),
            (
                "queries, keys, values",
                self.layers(|layer| {
                    let attention = &layer.attention.self_attention;
                    for linear in [&attention.query, &attention.key, &attention.value] {
                        done(linear.activated(hidden.clone(), Activation::Identity, products));
                    }
                }),
            ),
            (
                "the same and attention",
                self.layers(|layer| {
                    let attention = &layer.attention.self_attention;
                    done(attention.forward(hidden.clone(), none.clone(), Queries::All, products));
                }),
            ),
            (
                "projection, residual, normalization",
                self.layers(|layer| done(layer.attention.output.forward(hidden.clone(), hidden.clone(), products))),
            ),
            ("up, GELU", self.layers(|layer| done(layer.intermediate.forward(hidden.clone(), products)))),
            (
                "down, residual, normalization",
                self.layers(|layer| done(layer.output.forward(wide.clone(), hidden.clone(), products))),
            ),
            (
                "all layers",
                timed(|| done(self.bert.encoder.forward(hidden.clone(), none.clone(), Queries::All, products))),
            ),
        ]
    }

    /// Seconds of an operation in all layers, one after another, so that weights are read from memory and not from cache.
    fn layers(&self, operation: impl Fn(&BertLayer)) -> f64 {
        timed(|| {
            for layer in &self.bert.encoder.layer {
                let EncoderLayer::PostNorm(layer) = layer else { unreachable!("bert-base is of BERT's form") };
                operation(layer);
            }
        })
    }
}

fn done(tensor: Tensor<3>) {
    std::hint::black_box(tensor);
}

/// The median time of several rounds in seconds, after a first round that packs the weights.
fn timed(work: impl Fn()) -> f64 {
    work();
    let mut seconds = [0.0; ROUNDS];
    for round in &mut seconds {
        let started = Instant::now();
        work();
        *round = started.elapsed().as_secs_f64();
    }
    seconds.sort_by(f64::total_cmp);
    seconds[ROUNDS / 2]
}
