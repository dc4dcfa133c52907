"""Writes toy.json: what PyTorch makes of a toy's training with the options of `[train]`, for options.rs.

    python3 tests/all/training/generate.py

Written by PyTorch 2.9.1, in 64-bit floats. The toy: four rows of three words, whose embeddings' mean goes through a linear layer.
"""
import itertools
import json
import math
import pathlib

import torch
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

torch.set_default_dtype(torch.float64)
IDS = torch.tensor([[0, 1, 2], [3, 4, 0], [1, 1, 4], [2, 3, 3]])
TARGETS = torch.tensor([0, 1, 1, 0])


def waves(shape, step):
    return torch.tensor([math.sin(step * (at + 1)) for at in range(math.prod(shape))]).reshape(shape)


class Toy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.words = torch.nn.Embedding(5, 3, _weight=waves((5, 3), 0.7))
        self.classifier = torch.nn.Linear(3, 2)
        self.classifier.weight.data = waves((3, 2), 1.1).T.contiguous()
        self.classifier.bias.data = waves((2,), 0.4)

    def forward(self, ids):
        return self.classifier(self.words(ids).mean(dim=1))


def train(fgm, ema):
    model = Toy()
    bias = model.classifier.bias
    weights = [weight for weight in model.parameters() if weight is not bias]
    groups = [{"params": weights, "weight_decay": 0.01}, {"params": [bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.05)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema))
    norms = []
    for _ in range(4):
        optimizer.zero_grad()
        F.cross_entropy(model(IDS), TARGETS).backward()
        if fgm > 0:
            words = model.words.weight
            step = fgm * words.grad / words.grad.norm()
            words.data += step
            F.cross_entropy(model(IDS), TARGETS).backward()
            words.data -= step
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        optimizer.step()
        average.update_parameters(model)
    saved = average.module if ema > 0 else model
    return {
        "fgm": fgm,
        "ema": ema,
        "gradient_norms": norms,
        "words": saved.words.weight.flatten().tolist(),
        "classifier": saved.classifier.weight.T.flatten().tolist(),
        "bias": saved.classifier.bias.tolist(),
    }


cases = [train(fgm, ema) for fgm, ema in itertools.product((0.0, 0.5), (0.0, 0.9))]
path = pathlib.Path(__file__).with_name("toy.json")
path.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
