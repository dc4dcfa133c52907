"""Writes variants.json: the predictions of the model beside it with other activations, and with a decoder of its own.

    pip install torch==2.9.1 transformers==5.23.0 && python variants.py
"""

import json
import pathlib
import tempfile

import torch
from safetensors.torch import load_file, save_file
from transformers import BertForPreTraining

folder = pathlib.Path(__file__).parent
given = json.loads((folder / "expected.json").read_text())
config = json.loads((folder / "config.json").read_text())
tensors = load_file(folder / "model.safetensors")


def predictions(changed_config, changed_tensors):
    """What `from_pretrained` makes of a folder."""
    with tempfile.TemporaryDirectory() as copy:
        copy = pathlib.Path(copy)
        (copy / "config.json").write_text(json.dumps(config | changed_config))
        save_file(tensors | changed_tensors, copy / "model.safetensors", metadata={"format": "pt"})
        model = BertForPreTraining.from_pretrained(copy).eval()
    input_ids = torch.tensor(given["input_ids"])
    with torch.no_grad():
        output = model(input_ids=input_ids, token_type_ids=torch.tensor(given["token_type_ids"]),
                       attention_mask=(input_ids != 0).long())
    return output.prediction_logits.reshape(-1, 20)[given["places"]].tolist()


names = ["gelu", "gelu_python", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "quick_gelu", "relu", "silu", "swish", "tanh"]
words = tensors["bert.embeddings.word_embeddings.weight"]
weight = {"cls.predictions.decoder.weight": words.flip(0) * 0.5}
bias = {"cls.predictions.decoder.bias": tensors["cls.predictions.bias"] + 0.25}
copies = {"cls.predictions.decoder.weight": words.clone(),
          "cls.predictions.decoder.bias": tensors["cls.predictions.bias"].clone()}
untied = {"tie_word_embeddings": False}
expected = {
    "hidden_act": {name: predictions({"hidden_act": name}, {}) for name in names},
    "untied": predictions(untied, weight | bias),
    "tied_but_different": predictions({}, weight | bias),
    "only_the_bias_differs": predictions({}, copies | bias),
    "copies": predictions({}, copies),
}
(folder / "variants.json").write_text(json.dumps(expected) + "\n")
