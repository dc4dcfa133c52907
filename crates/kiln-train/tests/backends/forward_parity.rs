//! Compares hidden states and pooled outputs with those of PyTorch and transformers.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use kiln_backend::{Backend, Entry, Flex, compiled_in};
use kiln_bert::{Bert, BertConfig, Inputs, Weights, load_bert};
use safetensors::SafeTensors;

use crate::assets::{MODELS, assets};
use crate::tiny;

struct Reference {
    ids: Vec<i32>,
    mask: Vec<i32>,
    types: Vec<i32>,
    shape: [usize; 2],
    hidden_states: Vec<f32>,
    pooled_output: Option<Vec<f32>>,
}

fn reference(path: &Path) -> Reference {
    let bytes = std::fs::read(path).expect("the reference is there");
    let file = SafeTensors::deserialize(&bytes).expect("it is safetensors");
    let ints = |name| -> Vec<i32> {
        let tensor = file.tensor(name).expect("the reference has it");
        tensor.data().as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes) as i32).collect()
    };
    let floats = |name| -> Option<Vec<f32>> {
        let tensor = file.tensor(name).ok()?;
        Some(tensor.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    };
    let shape = file.tensor("input_ids").expect("the reference has it").shape().try_into().expect("two axes");
    Reference {
        ids: ints("input_ids"),
        mask: ints("attention_mask"),
        types: ints("token_type_ids"),
        shape,
        hidden_states: floats("last_hidden_state").expect("the reference has it"),
        pooled_output: floats("pooler_output"),
    }
}

fn model(folder: &Path, device: &Device) -> Bert {
    let config = BertConfig::from_folder(folder).expect("a supported config");
    let weights = Weights::from_folder(folder).expect("weights");
    load_bert(&config, &weights, device).expect("a whole checkpoint").module
}

/// Compares the hidden states of all tokens except padding, whose states depend on the implementation.
fn assert_hidden_states(hidden_states: Tensor<3>, expected: &Reference, [backend, name]: [&str; 2]) {
    let [batch, seq, hidden] = hidden_states.dims();
    assert_eq!([batch, seq], expected.shape);
    let ours = tiny::numbers(hidden_states);
    for token in (0..batch * seq).filter(|&token| expected.mask[token] == 1) {
        let range = token * hidden..(token + 1) * hidden;
        tiny::assert_close(
            &ours[range.clone()],
            &expected.hidden_states[range],
            if crate::has_tf32(backend) { 5e-3 } else { 1e-4 },
            &format!("{backend}: {name}: token {token}"),
        );
    }
}

/// Attention has a separate code path with autodiff.
#[test]
fn hidden_states_are_pytorch_s_with_and_without_autodiff() {
    let Some(assets) = assets() else { return };
    for name in MODELS {
        let expected = reference(&assets.join(format!("reference/{name}.forward.safetensors")));
        let bert = model(&assets.join("models").join(name), &Flex::device(0));
        for device in [Flex::device(0), Flex::device(0).autodiff()] {
            let inputs = Inputs::new(&expected.ids, &expected.mask, &expected.types, expected.shape, &device);
            // Without `freeze`, dropout would be active on a device with autodiff.
            let bert = if device.is_autodiff() { bert.clone().train().freeze() } else { bert.clone() };
            let hidden_states = bert.forward(inputs);
            if let (Some(pooler), Some(pooled)) = (&bert.pooler, &expected.pooled_output) {
                let ours = tiny::numbers(pooler.forward(hidden_states.clone()));
                tiny::assert_close(&ours, pooled, 1e-4, &format!("{name}: pooled output"));
            }
            assert_eq!(bert.pooler.is_some(), expected.pooled_output.is_some(), "{name}: pooler");
            assert_hidden_states(hidden_states, &expected, [Flex::NAME, name]);
        }
    }
}

/// Uses six layers of the real English model, because twelve would take minutes on a software adapter.
#[test]
fn hidden_states_are_pytorch_s_on_every_backend_compiled_in() {
    let Some(assets) = assets() else { return };
    for backend in compiled_in().into_iter().filter(|name| *name != Flex::NAME) {
        let model = HiddenStates { assets: &assets, name: MODELS[0] };
        kiln_backend::run(backend, model).expect("it is compiled in");
    }
}

struct HiddenStates<'a> {
    assets: &'a Path,
    name: &'a str,
}

impl Entry for HiddenStates<'_> {
    type Output = ();

    fn run<B: Backend>(self) {
        let Self { assets, name } = self;
        let expected = reference(&assets.join(format!("reference/{name}.forward.safetensors")));
        let device = B::device(0);
        let bert = model(&assets.join("models").join(name), &device);
        let inputs = Inputs::new(&expected.ids, &expected.mask, &expected.types, expected.shape, &device);
        assert_hidden_states(bert.forward(inputs), &expected, [B::NAME, name]);
    }
}

#[test]
fn a_padded_row_equals_the_same_row_alone() {
    let Some(assets) = assets() else { return };
    for name in MODELS {
        let Reference { ids, mask, types, shape: [batch, seq], .. } =
            reference(&assets.join(format!("reference/{name}.forward.safetensors")));
        let device = Flex::device(0);
        let bert = model(&assets.join("models").join(name), &device);
        let together = bert.forward(Inputs::new(&ids, &mask, &types, [batch, seq], &device));
        let [_, _, hidden] = together.dims();
        let together = tiny::numbers(together);
        for row in 0..batch {
            let start = row * seq;
            let length = mask[start..start + seq].iter().sum::<i32>() as usize;
            let own = start..start + length;
            let inputs = Inputs::new(&ids[own.clone()], &mask[own.clone()], &types[own], [1, length], &device);
            let alone = tiny::numbers(bert.forward(inputs));
            let padded = &together[start * hidden..(start + length) * hidden];
            tiny::assert_close(&alone, padded, 1e-5, &format!("{name}: row {row} of {length} tokens"));
        }
    }
}
