"""What AutoTokenizer makes of `vocab.json` and `merges.txt` without `tokenizer.json`: files beside them, ids, offsets.

    pip install transformers==5.23.0
    python generate.py > roberta.json
"""

import json
import tempfile
from pathlib import Path

from transformers import AutoTokenizer

TEXTS = [
    ["clean 房间 unable!", None],
    [" cleaners  café\n", "干净 cafe"],
    ["", "房"],
    ["clean <pad> 房间<s>", None],
    ["the <new>abc [CLS] nab", "<new> x"],
    ["ɐ 😀e\u0301", "𠮷 clean"],
]
# Where there is no mask, AutoTokenizer makes one with an id that no model has.
MASKED = ["clean <mask> 房间<mask>\n", None]
MASK = {"content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False}
NEW = {"content": "<new>", "lstrip": False, "rstrip": True, "normalized": False, "single_word": False, "special": False}
CASES = [
    {},
    {"tokenizer_config.json": {"add_prefix_space": True, "trim_offsets": False}},
    {"tokenizer_config.json": {"add_prefix_space": True, "tokenizer_class": "RobertaTokenizerFast"}},
    {"special_tokens_map.json": {"mask_token": MASK}, "added_tokens.json": {"<mask>": 288, "<new>": 289}},
    {
        "tokenizer_config.json": {
            "added_tokens_decoder": {"288": MASK | {"special": True}, "289": NEW, "3": NEW | {"content": "<unk>"}},
            "mask_token": "<mask>",
            "cls_token": "<unk>",
            "sep_token": "ab",
            "additional_special_tokens": ["nab"],
        },
        # Not read, because the configuration lists the added tokens.
        "special_tokens_map.json": {"cls_token": "<pad>"},
        "added_tokens.json": {"<other>": 288},
    },
    {
        "tokenizer_config.json": {"mask_token": "nab", "cls_token": "<s>", "extra_special_tokens": {"image_token": "unab"}},
        "special_tokens_map.json": {"cls_token": "[CLS]", "sep_token": {"content": "</s>", "lstrip": False}},
        "added_tokens.json": {"[CLS]": 288},
    },
]

here = Path(__file__).parent
model = json.loads((here / "tokenizer.json").read_text(encoding="utf-8"))["model"]
cases = []
for files in CASES:
    with tempfile.TemporaryDirectory() as folder:
        write = lambda name, text: (Path(folder) / name).write_text(text, encoding="utf-8")
        write("config.json", json.dumps({"model_type": "roberta"}))
        write("vocab.json", json.dumps(model["vocab"], ensure_ascii=False))
        write("merges.txt", "#version: 0.2\n" + "".join(" ".join(merge) + "\n" for merge in model["merges"]))
        for name, content in files.items():
            write(name, json.dumps(content))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        rows = []
        for text, pair in TEXTS + [MASKED] * ("<mask>" in json.dumps(files)):
            encoded = tokenizer(text, pair, return_offsets_mapping=True)
            rows.append({"text": text, "pair": pair, "ids": encoded["input_ids"], "offsets": encoded["offset_mapping"]})
        cases.append({"files": files, "rows": rows})
print(json.dumps(cases, ensure_ascii=False, separators=(",", ":")))
