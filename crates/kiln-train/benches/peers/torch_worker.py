"""PyTorch's side of `cargo xtask bench`: reads the name of a piece of work from a line, does it once, writes the seconds.

`f32` is PyTorch as it comes; `bf16` is autocast, and for latency, as in deployment, weights in bf16; `int8` is dynamic
quantization of the linear layers. `KILN_BENCH_BACKEND=cuda` has it compute on the first card. Batches of reviews are
sorted by length, which is PyTorch's best setting; `shuffled` is what transformers does unless told otherwise.
"""

import os
import random
import resource
import sys
import time
from types import SimpleNamespace

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    ModernBertConfig,
    RobertaConfig,
)
from transformers.utils import logging

VOCABULARY, REVIEWS, MAX_LENGTH, BATCH = 21_128, 2_000, 128, 16
# Texts after one another, of which latency is the mean: the machine is awake by then.
IN_A_ROW = 20
DEVICE = "cuda" if os.environ.get("KILN_BENCH_BACKEND") == "cuda" else "cpu"
torch.set_num_threads(int(os.environ["KILN_BENCH_THREADS"]))
torch.manual_seed(7)
logging.set_verbosity_error()
logging.disable_progress_bar()


def autocast(precision):
    return torch.autocast(DEVICE, torch.bfloat16, enabled=precision == "bf16")


def optimizer_of(model):
    decayed = [p for n, p in model.named_parameters() if not n.endswith("bias") and "LayerNorm" not in n]
    rest = [p for n, p in model.named_parameters() if n.endswith("bias") or "LayerNorm" in n]
    decayed, rest = [[p for p in part if p.requires_grad] for part in (decayed, rest)]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=5e-5, eps=1e-8)


class FirstToken(torch.nn.Module):
    """A classifier of two labels on an encoder's first token."""

    def __init__(self, config):
        super().__init__()
        self.encoder = AutoModel.from_config(config)
        self.dropout = torch.nn.Dropout(0.1)
        self.head = torch.nn.Linear(config.hidden_size, 2)

    def forward(self, labels=None, **batch):
        logits = self.head(self.dropout(self.encoder(**batch).last_hidden_state[:, 0]))
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
        return SimpleNamespace(logits=logits, loss=loss)


def base(family):
    if family == "roberta":
        return FirstToken(RobertaConfig(
            vocab_size=VOCABULARY, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5))
    if family == "modernbert":
        return FirstToken(ModernBertConfig(vocab_size=VOCABULARY, pad_token_id=0, bos_token_id=1, eos_token_id=2,
                                           cls_token_id=1, sep_token_id=2, reference_compile=False))
    return BertForSequenceClassification(BertConfig(vocab_size=VOCABULARY, num_labels=2))


def adapted():
    config = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"])
    return get_peft_model(base("bert"), config)


def step(model, optimizer, batch, targets, precision):
    with autocast(precision):
        loss = model(**batch, labels=targets).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def ids(rows, columns):
    numbers = [(i * 7919 + 13) % VOCABULARY for i in range(rows * columns)]
    return {
        "input_ids": torch.tensor(numbers, device=DEVICE).reshape(rows, columns),
        "attention_mask": torch.ones(rows, columns, dtype=torch.long, device=DEVICE),
    }


class Works:
    def __init__(self):
        self.kept = {}

    def keep(self, name, make):
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]

    def quantized(self):
        def quantize():
            return torch.ao.quantization.quantize_dynamic(base("bert").eval(), {torch.nn.Linear}, dtype=torch.qint8)

        return self.keep("quantized", quantize)

    def small(self):
        folder = os.path.join(os.environ["KILN_ASSETS"], "models/multilingual-e5-small-zh")
        return BertForSequenceClassification.from_pretrained(folder, num_labels=2, dtype=torch.float32).to(DEVICE)

    def reviews(self):
        def read():
            folder = os.environ["KILN_ASSETS"]
            tokenizer = AutoTokenizer.from_pretrained(os.path.join(folder, "models/multilingual-e5-small-zh"))
            with open(os.path.join(folder, "data/chnsenticorp/train.tsv"), encoding="utf-8") as file:
                lines = file.read().split("\n")
            rows = [line.rsplit("\t", 1) for line in lines if "\t" in line][:REVIEWS]
            return tokenizer, [text for text, _ in rows], [int(label == "positive") for _, label in rows]

        return self.keep("reviews", read)

    def batches(self, size, order):
        tokenizer, texts, labels = self.reviews()
        encoded = tokenizer(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]
        rows = list(range(len(texts)))
        if order == "sorted":
            rows.sort(key=lambda row: len(encoded[row]))
        else:
            random.Random(7).shuffle(rows)
        for start in range(0, len(rows), size):
            chosen = rows[start : start + size]
            batch = tokenizer.pad({"input_ids": [encoded[row] for row in chosen]}, return_tensors="pt")
            yield dict(batch.to(DEVICE)), torch.tensor([labels[row] for row in chosen], device=DEVICE)

    def epoch(self, precision, order):
        model = self.small().train()
        optimizer = optimizer_of(model)
        start = time.perf_counter()
        for batch, targets in self.batches(BATCH, order):
            step(model, optimizer, batch, targets, precision)
        return time.perf_counter() - start

    def run(self, work, precision):
        work, _, family = work.partition("-")
        shape = (1, 2_048) if work.endswith("2048") else (64, 128) if work.endswith("64") else (8, 128)
        if work in ("forward", "forward64", "forward2048"):
            if precision == "int8":
                model = self.quantized()
            else:
                model = self.keep("base", lambda: base(family).eval().to(DEVICE))
            batch = ids(*shape)
            with torch.inference_mode(), autocast(precision):
                return timed(lambda: model(**batch).logits.cpu())
        if work == "latency":
            kind = torch.bfloat16 if precision == "bf16" else torch.float32
            fresh = lambda: BertModel(BertConfig(vocab_size=VOCABULARY)).to(DEVICE, kind).eval()
            model = self.keep(f"latency {precision}", fresh)
            batch = ids(1, 20)
            with torch.inference_mode():
                return timed(lambda: [model(**batch).pooler_output.cpu() for _ in range(IN_A_ROW)]) / IN_A_ROW
        if work in ("step", "step64", "step2048", "lora", "lora64"):
            fresh = lambda: (adapted() if work.startswith("lora") else base(family)).train().to(DEVICE)
            model = self.keep("training", fresh)
            optimizer = self.keep("optimizer", lambda: optimizer_of(model))
            targets = torch.arange(shape[0], device=DEVICE) % 2
            return timed(lambda: step(model, optimizer, ids(*shape), targets, precision))
        if work == "epoch":
            return self.epoch(precision, "sorted")
        if work == "shuffled":
            return self.epoch(precision, "shuffled")
        if work == "predict":
            model = self.keep("predict", lambda: self.small().eval())
            self.reviews()
            with torch.inference_mode(), autocast(precision):
                return timed(lambda: [model(**batch).logits.cpu() for batch, _ in self.batches(32, "sorted")])
        if work == "load":
            with torch.inference_mode():
                return timed(lambda: self.small().eval()(**ids(1, 20)).logits)
        if work == "memory":
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        raise ValueError(f"there is no work {work}")


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


works = Works()
for line in sys.stdin:
    print(works.run(*line.split()), flush=True)
