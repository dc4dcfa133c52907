"""Writes bert-base with fresh weights as ONNX, in f32 and with dynamic int8, into the folder given."""

import os
import sys

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process
from transformers import BertConfig, BertForSequenceClassification

folder = sys.argv[1]
os.makedirs(folder, exist_ok=True)
torch.manual_seed(7)
config = BertConfig(vocab_size=21_128, num_labels=2, attn_implementation="eager")
model = BertForSequenceClassification(config).eval()


class Logits(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


example = (torch.ones(2, 16, dtype=torch.long), torch.ones(2, 16, dtype=torch.long))
axes = {0: "batch", 1: "seq"}
whole, prepared = os.path.join(folder, "whole.onnx"), os.path.join(folder, "bert-base-f32.onnx")
torch.onnx.export(
    Logits(),
    example,
    whole,
    input_names=["input_ids", "attention_mask"],
    output_names=["logits"],
    dynamic_axes={"input_ids": axes, "attention_mask": axes, "logits": {0: "batch"}},
    opset_version=17,
    dynamo=False,
)
# What onnxruntime asks for before quantization; its graph optimizations run again when a session loads the model.
quant_pre_process(whole, prepared, skip_symbolic_shape=True)
quantized = os.path.join(folder, "bert-base-int8.onnx")
quantize_dynamic(prepared, quantized, weight_type=QuantType.QInt8, per_channel=True)
os.remove(whole)
