"""Writes what stands beside it: a tiny `BertForPreTraining` with random weights, saved by transformers, and its logits.

    pip install torch==2.9.1 transformers==5.23.0 && python generate.py
"""

import json
import pathlib

import torch
from transformers import BertConfig, BertForPreTraining

folder = pathlib.Path(__file__).parent
torch.manual_seed(0)
config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
                    max_position_embeddings=12, initializer_range=0.5)
model = BertForPreTraining(config).eval()
with torch.no_grad():
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "LayerNorm" in name:
            parameter.add_(torch.randn_like(parameter) * 0.3)
model.save_pretrained(folder)
input_ids = torch.tensor([[2, 7, 4, 9, 3, 4, 6, 3], [2, 5, 3, 4, 3, 0, 0, 0]])
token_type_ids = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0, 0, 0]])
attention_mask = (input_ids != 0).long()
places = [2, 5, 11]
with torch.no_grad():
    output = model(input_ids=input_ids, token_type_ids=token_type_ids, attention_mask=attention_mask)
logits = output.prediction_logits.reshape(-1, 20)[places]
expected = {"input_ids": input_ids.tolist(), "token_type_ids": token_type_ids.tolist(), "places": places,
            "predictions": logits.tolist(), "seq_relationship": output.seq_relationship_logits.tolist()}
(folder / "expected.json").write_text(json.dumps(expected) + "\n")
