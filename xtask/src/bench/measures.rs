//! The list of measures and peers.

use std::path::PathBuf;

use crate::workspace;

/// One comparison, with the work of each side.
#[derive(Clone, Copy)]
pub struct Measure {
    pub name: &'static str,
    pub ours: &'static str,
    pub peer: Peer,
    pub theirs: &'static str,
    pub rounds: usize,
    /// Whether the work needs the assets.
    pub real: bool,
}

/// A library that Kiln is compared with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    PyTorch,
    OnnxRuntime,
    OpenVino,
}

impl Peer {
    pub fn name(self) -> &'static str {
        match self {
            Self::PyTorch => "PyTorch",
            Self::OnnxRuntime => "onnxruntime",
            Self::OpenVino => "OpenVINO",
        }
    }

    pub fn script(self) -> PathBuf {
        let name = match self {
            Self::PyTorch => "torch_worker.py",
            Self::OnnxRuntime => "onnx_worker.py",
            Self::OpenVino => "openvino_worker.py",
        };
        workspace::root().join("crates/kiln-train/benches/peers").join(name)
    }
}

use Peer::{OnnxRuntime, OpenVino, PyTorch};

pub const MEASURES: [Measure; 35] = [
    fresh("forward of 8 × 128 tokens, f32", "forward f32", PyTorch, 9),
    fresh("forward of 8 × 128 tokens, f32", "forward f32", OnnxRuntime, 9),
    fresh("forward of 8 × 128 tokens, f32", "forward f32", OpenVino, 9),
    fresh("forward of 8 × 128 tokens, bf16", "forward bf16", PyTorch, 9),
    fresh("forward of 8 × 128 tokens, bf16", "forward bf16", OpenVino, 9),
    fresh("forward of 8 × 128 tokens, int8", "forward int8", PyTorch, 9),
    fresh("forward of 8 × 128 tokens, int8", "forward int8", OnnxRuntime, 9),
    fresh("forward of 8 × 128 tokens, int8", "forward int8", OpenVino, 9),
    fresh("training step of 8 × 128 tokens, f32", "step f32", PyTorch, 7),
    fresh("training step of 8 × 128 tokens, bf16", "step bf16", PyTorch, 7),
    fresh("the same under LoRA, f32; theirs with peft", "lora f32", PyTorch, 7),
    fresh("the same under LoRA, bf16; theirs with peft", "lora bf16", PyTorch, 7),
    fresh("one text of 20 tokens, f32", "latency f32", PyTorch, 9),
    fresh("one text of 20 tokens, f32", "latency f32", OnnxRuntime, 9),
    fresh("one text of 20 tokens, f32", "latency f32", OpenVino, 9),
    fresh("one text of 20 tokens, bf16", "latency bf16", PyTorch, 9),
    fresh("one text of 20 tokens, bf16", "latency bf16", OpenVino, 9),
    fresh("one text of 20 tokens, int8", "latency int8", OnnxRuntime, 9),
    fresh("one text of 20 tokens, int8", "latency int8", OpenVino, 9),
    fresh("RoBERTa-base, forward of 8 × 128 tokens, f32", "forward-roberta f32", PyTorch, 7),
    fresh("RoBERTa-base, forward of 8 × 128 tokens, bf16", "forward-roberta bf16", PyTorch, 7),
    fresh("RoBERTa-base, training step, bf16", "step-roberta bf16", PyTorch, 5),
    fresh("ModernBERT-base, forward of 8 × 128 tokens, f32", "forward-modernbert f32", PyTorch, 7),
    fresh("ModernBERT-base, forward of 8 × 128 tokens, bf16", "forward-modernbert bf16", PyTorch, 7),
    fresh("ModernBERT-base, training step, f32", "step-modernbert f32", PyTorch, 5),
    fresh("ModernBERT-base, training step, bf16", "step-modernbert bf16", PyTorch, 5),
    fresh("ModernBERT-base, forward of 1 × 2,048 tokens, f32", "forward2048-modernbert f32", PyTorch, 5),
    fresh("ModernBERT-base, forward of 1 × 2,048 tokens, bf16", "forward2048-modernbert bf16", PyTorch, 5),
    fresh("ModernBERT-base, step of 1 × 2,048 tokens, bf16", "step2048-modernbert bf16", PyTorch, 5),
    real("predicting 2,000 reviews, bf16", "predict bf16", PyTorch, "predict bf16", 3),
    real("predicting 2,000 reviews, bf16", "predict bf16", OpenVino, "predict bf16", 3),
    real("predicting 2,000 reviews, int8, theirs bf16", "predict int8", PyTorch, "predict bf16", 3),
    real("predicting 2,000 reviews, int8", "predict int8", OpenVino, "predict int8", 3),
    real("epoch over 2,000 reviews, bf16", "epoch bf16", PyTorch, "epoch bf16", 2),
    real("epoch over 2,000 reviews, bf16, theirs f32 and shuffled", "epoch bf16", PyTorch, "shuffled f32", 1),
];

/// Batches that fill a GPU, measured only on GPUs.
pub const LARGE: [Measure; 5] = [
    fresh("forward of 64 × 128 tokens, f32", "forward64 f32", PyTorch, 9),
    fresh("forward of 64 × 128 tokens, bf16", "forward64 bf16", PyTorch, 9),
    fresh("training step of 64 × 128 tokens, f32", "step64 f32", PyTorch, 9),
    fresh("training step of 64 × 128 tokens, bf16", "step64 bf16", PyTorch, 9),
    fresh("the same of 64 × 128 tokens under LoRA, bf16; theirs with peft", "lora64 bf16", PyTorch, 9),
];

impl Measure {
    /// Whether this is also measured with a limited instruction set. onnxruntime always uses all instructions, and bf16
    /// needs the newest ones.
    pub fn is_for_fewer_instructions(&self) -> bool {
        self.peer != OnnxRuntime && ![self.ours, self.theirs].iter().any(|work| work.ends_with("bf16"))
    }

    /// Whether both Kiln and the peer can run this on a GPU.
    pub fn is_for_cards(&self) -> bool {
        self.peer == PyTorch && !self.ours.ends_with("int8")
    }
}

/// A measure with the same work on both sides, on a base model with fresh weights.
const fn fresh(name: &'static str, work: &'static str, peer: Peer, rounds: usize) -> Measure {
    Measure { name, ours: work, peer, theirs: work, rounds, real: false }
}

/// A measure on a real model and real reviews.
const fn real(name: &'static str, ours: &'static str, peer: Peer, theirs: &'static str, rounds: usize) -> Measure {
    Measure { name, ours, peer, theirs, rounds, real: true }
}

/// Measures of peak memory, in processes that do nothing else: name, work, and whether the work needs the assets.
pub const MEMORY: [(&str, &str, bool); 3] = [
    ("peak memory of a training step of 8 × 128 tokens, f32", "step f32", false),
    ("peak memory of the same under LoRA, f32", "lora f32", false),
    ("peak memory of loading a model and one text of 20 tokens, f32", "load f32", true),
];
