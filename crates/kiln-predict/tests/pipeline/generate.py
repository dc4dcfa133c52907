"""Writes cases.json: the answers of transformers 4.57.3's question-answering pipeline, the last of version 4, for random logits.

    pip install transformers==4.57.3 numpy && python generate.py

No framework is needed: the pipeline's own code encodes the texts, and reads the logits that are drawn here.
"""
import json, pathlib, random, types

import numpy as np
import transformers.pipelines.question_answering as module
from transformers import BertTokenizerFast

FOLDER = pathlib.Path(__file__).parent
VOCABULARY = FOLDER.parents[2] / "kiln-tokenize/tests/tiny/vocab.txt"
WORDS = ["clean", "Clean", "cleaners", "cafe", "unable", "房", "间", "!", "房间", "zzz"]
STRIDE = 3

# What the pipeline calls of TensorFlow, in NumPy.
module.tf = types.SimpleNamespace(constant=np.array, int64=np.int64, int32=np.int32, expand_dims=np.expand_dims,
                                  cast=lambda array, dtype: array.astype(dtype))
Pipeline = module.QuestionAnsweringPipeline


class Offline(Pipeline):
    def __init__(self, tokenizer):
        self.tokenizer, self.framework = tokenizer, "tf"


def logits(count):
    return np.round(drawn.normal(scale=2, size=(1, count)), 3).astype(np.float32)


random.seed(3)
drawn = np.random.default_rng(3)
pipeline = Offline(BertTokenizerFast(vocab_file=str(VOCABULARY), do_lower_case=True))
cases = []
for at in range(40):
    question = random.choice(["房间", "clean cafe", "unable 房 !"])
    context = " ".join(random.choice(WORDS) for _ in range(random.choice([1, 4, 9, 25])))
    max_length = random.choice([14, 17, 384])
    outputs = list(pipeline.preprocess(Pipeline.create_sample(question, context), max_seq_len=max_length, doc_stride=STRIDE))
    for output in outputs:
        del output["attention_mask"]
        output["start"], output["end"] = (logits(output["input_ids"].shape[1]) for _ in range(2))
    # A short limit makes it matter.
    max_answer_length = random.choice([15, 15, 2])
    answer = pipeline.postprocess(outputs, max_answer_len=max_answer_length)
    windows = [{name: output[key][0].tolist() for name, key in (("input_ids", "input_ids"), ("start", "start"), ("end", "end"))}
               for output in outputs]
    cases.append({"question": question, "context": context, "max_length": max_length, "stride": STRIDE,
                  "max_answer_length": max_answer_length, "windows": windows, **{f"expected_{k}": v for k, v in answer.items()}})
text = json.dumps(cases, ensure_ascii=False).replace(', {"question"', ',\n{"question"')
(FOLDER / "cases.json").write_text(text + "\n", encoding="utf-8")
