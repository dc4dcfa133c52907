"""OpenVINO's side of `cargo xtask bench`: the same lines in and out as `torch_worker.py`.

`f32` and `bf16` are the CPU plugin's inference precision; `int8` is NNCF's post-training quantization (SmoothQuant, static
scales), calibrated on real reviews where `KILN_ASSETS` names some, and otherwise on the numbers that are measured. One stream
has all threads; bulk prediction has two, each with its share.
"""

import os
import sys
import time

import nncf
import numpy
import openvino
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification
from transformers.utils import logging

VOCABULARY, REVIEWS, MAX_LENGTH, BATCH, IN_A_ROW, CALIBRATION = 21_128, 2_000, 128, 32, 20, 300
# NNCF shows its progress on standard output.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
THREADS = int(os.environ["KILN_BENCH_THREADS"])
torch.manual_seed(7)
logging.set_verbosity_error()
logging.disable_progress_bar()
nncf.set_log_level("ERROR")


def ids(rows, columns):
    numbers = [(i * 7919 + 13) % VOCABULARY for i in range(rows * columns)]
    return {
        "input_ids": numpy.array(numbers, dtype=numpy.int64).reshape(rows, columns),
        "attention_mask": numpy.ones((rows, columns), dtype=numpy.int64),
    }


class Logits(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def converted(model):
    example = {name: torch.from_numpy(value) for name, value in ids(2, 16).items()}
    return openvino.convert_model(Logits(model.eval()), example_input=example)


def compiled(model, precision, streams):
    # What is not quantized of an int8 model is computed in bf16, where the processor has it.
    has_bf16 = "KILN_BENCH_INSTRUCTIONS" not in os.environ
    hint = {"f32": "f32", "bf16": "bf16", "int8": "bf16" if has_bf16 else "f32"}[precision]
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": THREADS, "NUM_STREAMS": streams}
    return openvino.Core().compile_model(model, "CPU", settings)


class Works:
    def __init__(self):
        self.kept = {}

    def keep(self, name, make):
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]

    def folder(self):
        return os.path.join(os.environ["KILN_ASSETS"], "models/multilingual-e5-small-zh")

    def tokenizer(self):
        return self.keep("tokenizer", lambda: AutoTokenizer.from_pretrained(self.folder()))

    def texts(self):
        path = os.path.join(os.environ["KILN_ASSETS"], "data/chnsenticorp/train.tsv")
        with open(path, encoding="utf-8") as file:
            lines = file.read().split("\n")
        return [line.rsplit("\t", 1)[0] for line in lines if "\t" in line][:REVIEWS]

    def batch(self, encoded):
        batch = self.tokenizer().pad({"input_ids": encoded}, return_tensors="np")
        return {name: batch[name].astype(numpy.int64) for name in ("input_ids", "attention_mask")}

    def small(self, precision):
        model = AutoModelForSequenceClassification.from_pretrained(self.folder(), num_labels=2, dtype=torch.float32)
        model = converted(model)
        if precision == "int8":
            encoded = self.tokenizer()(self.texts()[:CALIBRATION], truncation=True, max_length=MAX_LENGTH)["input_ids"]
            texts = nncf.Dataset([self.batch([row]) for row in encoded])
            model = nncf.quantize(model, texts, model_type=nncf.ModelType.TRANSFORMER)
        return compiled(model, precision, 2)

    def base(self, precision):
        model = converted(BertForSequenceClassification(BertConfig(vocab_size=VOCABULARY, num_labels=2)))
        if precision == "int8":
            numbers = nncf.Dataset([ids(8, 128), ids(1, 20)] * 10)
            model = nncf.quantize(model, numbers, model_type=nncf.ModelType.TRANSFORMER)
        return compiled(model, precision, 1)

    def predict(self, model):
        encoded = self.tokenizer()(self.texts(), truncation=True, max_length=MAX_LENGTH)["input_ids"]
        encoded.sort(key=len)
        queue = openvino.AsyncInferQueue(model, 2)
        for start in range(0, len(encoded), BATCH):
            queue.start_async(self.batch(encoded[start : start + BATCH]))
        queue.wait_all()

    def run(self, work, precision):
        if work == "predict":
            model = self.keep(f"small {precision}", lambda: self.small(precision))
            return timed(lambda: self.predict(model))
        model = self.keep(f"base {precision}", lambda: self.base(precision))
        batch, times = {"forward": (ids(8, 128), 1), "latency": (ids(1, 20), IN_A_ROW)}[work]
        return timed(lambda: [model(batch) for _ in range(times)]) / times


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


works = Works()
for line in sys.stdin:
    print(works.run(*line.split()), file=ANSWERS, flush=True)
