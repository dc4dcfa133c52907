"""PyTorch's side of the accuracies in the README: the same data, checkpoint and settings as a recipe of ours.

    KILN_BENCH_THREADS=2 python finetune.py resume-ner ASSETS
    KILN_BENCH_THREADS=2 python finetune.py afqmc ASSETS
    KILN_BENCH_THREADS=2 python finetune.py resume-ner ASSETS --model SAMPLE --rows 300 --epochs 8 --warmup 0.1 --head linear

resume-ner: 4 epochs, batches of 16, rate 1e-4, linear decay, tokenized character by character; entity F1 of the test split by
the rule of seqeval; f32. chnsenticorp: the same settings; accuracy of the dev split. afqmc: 2 epochs, batches of 32, rate
5e-5, a tenth of the steps warming up, bf16 autocast; accuracy and macro F1 of the dev split.
"""

import argparse
import os
import random
import time

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModel, AutoTokenizer

parser = argparse.ArgumentParser()
parser.add_argument("task", choices=["resume-ner", "chnsenticorp", "afqmc"])
parser.add_argument("assets")
parser.add_argument("--model", help="another checkpoint's folder")
parser.add_argument("--rows", type=int, help="the first rows of the training split alone")
parser.add_argument("--epochs", type=int)
parser.add_argument("--warmup", type=float)
parser.add_argument("--seed", type=int, default=42)
parser.add_argument("--head", choices=["transformers", "linear"], default="transformers",
                    help="weights of standard deviation 0.02 behind dropout, or a plain torch.nn.Linear")
args = parser.parse_args()
task, assets = args.task, args.assets
torch.set_num_threads(int(os.environ["KILN_BENCH_THREADS"]))
torch.manual_seed(args.seed)
random.seed(args.seed)
folder = args.model or os.path.join(assets, "models/multilingual-e5-small-zh")
tokenizer = AutoTokenizer.from_pretrained(folder)
bert = AutoModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32)


def lines(path):
    with open(os.path.join(assets, "data", path), encoding="utf-8") as file:
        return [line.rstrip("\n") for line in file if line.strip()]


def tagged(name):
    rows = [line.split("\t") for line in lines(f"resume-ner/{name}.char.bmes")]
    return [(units.split(), tags.split()) for units, tags in rows]


def entities(tags):
    found, start, before, label_before = [], 0, "O", "_"
    for at, tag in enumerate([*tags, "O"]):
        prefix, _, label = tag.partition("-")
        prefix, label = ("I" if prefix == "M" else prefix), label or "_"
        other = label != label_before
        if before in "ES" or (before in "BI" and (prefix in "BSO" or other)):
            found.append((start, at, label_before))
        if prefix in "BS" or (prefix in "EI" and (before in "ESO" or other)):
            start = at
        before, label_before = prefix, label
    return set(found)


if task == "resume-ner":
    splits = {name: tagged(name) for name in ("train", "test")}
    labels = sorted({tag for _, tags in splits["train"] for tag in tags})
    epochs, batch_size, rate, warmup = 4, 16, 1e-4, 0.0
    most = min(256, bert.config.max_position_embeddings) - 2

    def encode(row):
        units, tags = row
        ids = tokenizer.convert_tokens_to_ids(units)[:most]
        tags = [labels.index(tag) if tag in labels else -100 for tag in tags[:most]]
        return [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id], [-100, *tags, -100]

    rows = {name: [encode(row) for row in split] for name, split in splits.items()}
elif task == "chnsenticorp":
    splits = {name: [line.rsplit("\t", 1) for line in lines(f"chnsenticorp/{name}.tsv")] for name in ("train", "dev")}
    labels = ["negative", "positive"]
    epochs, batch_size, rate, warmup = 4, 16, 1e-4, 0.0
    rows = {
        name: [(tokenizer(text, truncation=True, max_length=128)["input_ids"], [labels.index(label)]) for text, label in split]
        for name, split in splits.items()
    }
else:
    splits = {name: [line.split("\t") for line in lines(f"afqmc/{name}.txt")] for name in ("train", "dev")}
    labels = ["0", "1"]
    epochs, batch_size, rate, warmup = 2, 32, 5e-5, 0.1
    rows = {
        name: [(tokenizer(a, b, truncation=True, max_length=128)["input_ids"], [int(label)]) for a, b, label in split]
        for name, split in splits.items()
    }

if args.rows:
    rows["train"] = rows["train"][: args.rows]
epochs = args.epochs or epochs
warmup = warmup if args.warmup is None else args.warmup
head = torch.nn.Linear(bert.config.hidden_size, len(labels))
dropout = torch.nn.Dropout(0.1 if args.head == "transformers" else 0.0)
model = torch.nn.ModuleDict({"bert": bert, "dropout": dropout, "head": head})
if args.head == "transformers":
    head.weight.data.normal_(0, 0.02)
    head.bias.data.zero_()


def logits(batch):
    longest = max(len(ids) for ids, _ in batch)
    pad = tokenizer.pad_token_id
    ids = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in batch])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in batch])
    with torch.autocast("cpu", torch.bfloat16, enabled=task == "afqmc"):
        hidden = model["bert"](input_ids=ids, attention_mask=mask).last_hidden_state
    hidden = hidden.float()
    if task == "resume-ner":
        targets = torch.tensor([targets + [-100] * (longest - len(targets)) for _, targets in batch])
        return model["head"](model["dropout"](hidden)), targets
    return model["head"](model["dropout"](hidden[:, 0])), torch.tensor([targets[0] for _, targets in batch])


named = list(model.named_parameters())
plain = [p for n, p in named if n.endswith("bias") or "LayerNorm" in n]
decayed = [p for n, p in named if not (n.endswith("bias") or "LayerNorm" in n)]
optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}], lr=rate)
steps = epochs * -(-len(rows["train"]) // batch_size)
warm = int(steps * warmup)
schedule = torch.optim.lr_scheduler.LambdaLR(
    optimizer, lambda step: (step + 1) / warm if step < warm else (steps - step) / max(1, steps - warm)
)
start = time.perf_counter()
for epoch in range(epochs):
    model.train()
    # Sorted by length within shuffled windows, as ours are.
    order = list(range(len(rows["train"])))
    random.shuffle(order)
    windows = [sorted(order[at : at + 32 * batch_size], key=lambda row: len(rows["train"][row][0])) for at in range(0, len(order), 32 * batch_size)]
    batches = [window[at : at + batch_size] for window in windows for at in range(0, len(window), batch_size)]
    random.shuffle(batches)
    for batch in batches:
        scores, targets = logits([rows["train"][row] for row in batch])
        loss = cross_entropy(scores.reshape(-1, len(labels)), targets.reshape(-1), ignore_index=-100)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    print(f"epoch {epoch + 1}: {time.perf_counter() - start:.0f} s", flush=True)

model.eval()
name = "test" if task == "resume-ner" else "dev"
right = found = true = 0
pairs = []
with torch.inference_mode():
    for at in range(0, len(rows[name]), 32):
        scores, targets = logits(rows[name][at : at + 32])
        best = scores.argmax(-1)
        if task == "resume-ner":
            for said, real in zip(best, targets):
                keep = real != -100
                said, real = ([labels[i] for i in tags[keep]] for tags in (said, real))
                said, real = entities(said), entities(real)
                right, found, true = right + len(said & real), found + len(said), true + len(real)
        else:
            pairs += zip(targets.tolist(), best.tolist())
if task == "resume-ner":
    print(f"precision {right / found:.4f} recall {right / true:.4f} F1 {2 * right / (found + true):.4f}")
else:
    f1 = [2 * pairs.count((at, at)) / (sum(at in (real, said) for real, said in pairs) + pairs.count((at, at))) for at in (0, 1)]
    print(f"accuracy {sum(real == said for real, said in pairs) / len(pairs):.4f} macro F1 {sum(f1) / 2:.4f}")
