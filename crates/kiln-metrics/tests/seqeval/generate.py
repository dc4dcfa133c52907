"""Writes cases.json: what seqeval 1.2.2 (`pip install seqeval==1.2.2`) says of short sequences of tags, whole and broken."""

import json
import os
import random

from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, IOBES

random.seed(7)
SCHEMES = {"iob2": (IOB2, "BI"), "iobes": (IOBES, "BIES")}


def sequence(prefixes, length):
    return [random.choice(["O", *(f"{prefix}-{label}" for prefix in prefixes for label in "XY")]) for _ in range(length)]


def scores(true, predicted, **mode):
    return [function(true, predicted, zero_division=0, **mode) for function in (precision_score, recall_score, f1_score)]


cases = []
for name, (scheme, prefixes) in SCHEMES.items():
    for _ in range(60):
        lengths = [random.randint(1, 8) for _ in range(3)]
        true = [sequence(prefixes, length) for length in lengths]
        predicted = [tags if random.random() < 0.3 else sequence(prefixes, len(tags)) for tags in true]
        cases.append({
            "scheme": name,
            "true": true,
            "predicted": predicted,
            "entities": [get_entities(tags) for tags in true],
            "default": scores(true, predicted),
            "strict": scores(true, predicted, mode="strict", scheme=scheme),
        })
with open(os.path.join(os.path.dirname(__file__), "cases.json"), "w", encoding="utf-8") as file:
    file.write("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]\n")
