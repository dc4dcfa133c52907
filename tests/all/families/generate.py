"""transformers' logits for texts that spell the padding token out.

    pip install torch==2.9.1 transformers==5.23.0
    python generate.py ASSETS > padding_inside.json

ASSETS is the folder that has reference/families.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

# `1` is the padding token of these families: inside a text, twice in a row, before the end, and behind it as padding.
ROWS = [[0, 9, 1, 11, 12, 1, 1, 14, 2], [0, 10, 11, 13, 1, 2, 1, 1, 1]]
MASKS = [[1] * 9, [1] * 6 + [0] * 3]

expected = {}
for family in ["roberta", "xlm-roberta"]:
    folder = Path(sys.argv[1]) / "reference/families" / family
    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    kind = AutoModelForTokenClassification if "Token" in name else AutoModelForSequenceClassification
    model = kind.from_pretrained(folder).eval()
    assert model.config.pad_token_id == 1
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(ROWS), attention_mask=torch.tensor(MASKS)).logits
    expected[family] = [[round(value, 7) for value in row] for row in logits.reshape(-1, logits.shape[-1]).tolist()]
print(json.dumps({"rows": ROWS, "masks": MASKS, "logits": expected}, separators=(",", ":")))
