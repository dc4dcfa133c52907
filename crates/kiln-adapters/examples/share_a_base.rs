//! One encoder with two adapters: `cargo run --release -p kiln-adapters --example share_a_base`
//!
//! Clones share the base's weights, and each has its own adapter. The base is then quantized to 4 bits.
#![expect(clippy::print_stdout, reason = "an example prints")]

use burn::module::{Module, Param};
use kiln_adapters::{AdapterConfig, Variant, attach, merge, quantize};
use kiln_backend::{Backend, Flex};
use kiln_bert::{Bert, BertConfig, Inputs, Size, initialize};

fn main() -> Result<(), kiln_adapters::Error> {
    let device = Flex::device(0);
    let config = BertConfig { vocab_size: 1_000, ..BertConfig::of_size(Size::Tiny) };
    let base = config.init(&device);
    initialize(&base);
    let first_number = |bert: &Bert| {
        let inputs = Inputs::new(&[2, 7, 9, 3], &[1; 4], &[0; 4], [1, 4], &device);
        bert.forward(inputs).into_data().iter::<f32>().next().expect("there is one")
    };
    println!("base        {:+.6}, {} parameters", first_number(&base), base.num_params());

    for variant in [Variant::Lora, Variant::Dora] {
        let mut adapted = base.clone();
        let adapter = AdapterConfig { variant, ..AdapterConfig::default() };
        let layers = attach(&mut adapted, &config, &adapter, &device)?;
        println!("{variant:?} fresh  {:+.6}, {layers} layers", first_number(&adapted));
        // Simulates training: the second factor of a fresh adapter is zero.
        for (_, linear) in adapted.linear_layers() {
            if let Some(adapter) = &mut linear.adapter {
                adapter.lora_b.weight = Param::from_tensor(adapter.lora_b.weight.val() + 0.05);
            }
        }
        println!("{variant:?} moved  {:+.6}", first_number(&adapted));
        merge(&mut adapted);
        println!("{variant:?} merged {:+.6}", first_number(&adapted));
    }

    let mut quantized = base.clone();
    let bytes = quantize(&mut quantized, true);
    println!("in NF4      {:+.6}, the layers take {bytes} bytes", first_number(&quantized));
    Ok(())
}
