"""Writes losses.json: losses and their gradients as PyTorch computes them, for the tests of src/loss.rs and src/divergence.rs.

    python3 crates/kiln-heads/tests/torch/generate.py

Written by PyTorch 2.9.1, in 64-bit floats.
"""
import json
import math
import pathlib

import torch
from torch.nn import functional as F

torch.set_default_dtype(torch.float64)


def waves(shape, step):
    """Numbers that follow from their place."""
    count = math.prod(shape)
    return torch.tensor([2.5 * math.sin(step * (at + 1)) for at in range(count)]).reshape(shape)


def softmax(student, teacher, temperature):
    log_student, log_teacher = (F.log_softmax(x / temperature, dim=1) for x in (student, teacher))
    return F.kl_div(log_student, log_teacher, reduction="sum", log_target=True) * temperature**2


def sigmoid(student, teacher, temperature):
    probabilities = torch.sigmoid(teacher / temperature)
    cross_entropy = F.binary_cross_entropy_with_logits(student / temperature, probabilities, reduction="none")
    entropy = F.binary_cross_entropy(probabilities, probabilities, reduction="none")
    return (cross_entropy - entropy).mean(dim=1).sum() * temperature**2


def softmax_disagreement(a, b):
    a, b = F.log_softmax(a, dim=1), F.log_softmax(b, dim=1)
    divergence = lambda x, y: F.kl_div(x, y, reduction="sum", log_target=True)
    return (divergence(a, b) + divergence(b, a)) / 2


def sigmoid_disagreement(a, b):
    return (sigmoid(a, b, 1.0) + sigmoid(b, a, 1.0)) / 2


def focal(logits, weights, gamma):
    targets = torch.tensor([3, 0, 1])
    cross_entropy = F.cross_entropy(logits, targets, reduction="none")
    return ((1 - torch.exp(-cross_entropy)) ** gamma * cross_entropy * weights[0][targets]).sum()


def hidden_states(student, teacher, weights):
    return (F.mse_loss(student, teacher, reduction="none").mean(dim=2) * weights).sum()


def value_relations(student, teacher, heads, weights):
    def relations(values):
        batch, seq, hidden = values.shape
        values = values.reshape(batch, seq, heads, hidden // heads).transpose(1, 2)
        scores = values @ values.transpose(2, 3) / math.sqrt(hidden // heads)
        # Finite, because a divergence of minus infinities is no number.
        return F.log_softmax(scores.masked_fill((weights == 0)[:, None, None, :], -1e4), dim=3)

    divergence = F.kl_div(relations(student), relations(teacher), reduction="none", log_target=True)
    return (divergence.sum(dim=3).mean(dim=1) * weights).sum()


def case(kind, loss, student, **given):
    student.requires_grad_(True)
    value = loss(student)
    value.backward()
    listed = {name: x.tolist() if torch.is_tensor(x) else x for name, x in given.items()}
    return {
        "kind": kind,
        "student": student.detach().tolist(),
        **listed,
        "loss": value.item(),
        "gradient": student.grad.flatten().tolist(),
    }


def cases():
    for kind, divergence in (("softmax", softmax), ("sigmoid", sigmoid)):
        for temperature in (1.0, 2.0, 5.0):
            teacher = waves((3, 5), 0.9)
            loss = lambda student: divergence(student, teacher, temperature)
            yield case(kind, loss, waves((3, 5), 1.7), teacher=teacher, temperature=temperature)
    for kind, disagreement in (("softmax", softmax_disagreement), ("sigmoid", sigmoid_disagreement)):
        teacher = waves((3, 5), 0.9)
        loss = lambda student: disagreement(student, teacher)
        yield case(kind + "_disagreement", loss, waves((3, 5), 1.7), teacher=teacher)
    for gamma in (0.5, 2.0):
        weights = torch.tensor([[0.5, 1.0, 2.0, 1.5, 1.0]])
        loss = lambda student: focal(student, weights, gamma)
        yield case("focal", loss, waves((3, 5), 1.7), teacher=weights, gamma=gamma)
    # A row of four tokens and one of two, whose targets count one and three.
    weights = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.5, 1.5, 0.0, 0.0]])
    teacher = waves((2, 4, 6), 0.9)
    loss = lambda student: hidden_states(student, teacher, weights)
    yield case("hidden_states", loss, waves((2, 4, 6), 1.7), teacher=teacher, weights=weights)
    for width, heads in ((6, 3), (12, 2), (9, 1)):
        teacher = waves((2, 4, width), 0.9)
        loss = lambda student: value_relations(student, teacher, heads, weights)
        yield case("value_relations", loss, waves((2, 4, 6), 1.7), teacher=teacher, heads=heads, weights=weights)


path = pathlib.Path(__file__).with_name("losses.json")
path.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases()) + "\n]\n")
