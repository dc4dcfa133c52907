"""What transformers' tokenizers of the reference families make of some texts: ids, and what each token spans.

    pip install transformers==5.23.0
    python generate.py ASSETS > expected.json

ASSETS is the folder that has reference/families.
"""

import json
import sys
from pathlib import Path

from transformers import AutoTokenizer

TEXTS = [
    "The room was small, but clean.",
    "  two  leading spaces\tand a tab ",
    "房间很干净，下次还来！",
    "I like 房间 2024 and ﬁne Cafés",
    "Cafe\u0301 nai\u0308ve 😀 emoji 👩\u200d🔬🏽 end",
    "\u3000全角　空格 ｃｌｅａｎ",
    "don't  U.S.A. a-b ``quoted''",
    "𠮷野家 가나다 ñandú İstanbul",
    "",
]
FAMILIES = ["bert", "albert", "roberta", "xlm-roberta", "distilbert", "electra", "ernie", "modernbert"]

expected = {}
for family in FAMILIES:
    tokenizer = AutoTokenizer.from_pretrained(Path(sys.argv[1]) / "reference/families" / family)
    rows = []
    for text in TEXTS:
        encoded = tokenizer(text, return_offsets_mapping=True)
        rows.append({"text": text, "ids": encoded["input_ids"], "offsets": encoded["offset_mapping"]})
    expected[family] = rows
print(json.dumps(expected, ensure_ascii=False, separators=(",", ":")))
