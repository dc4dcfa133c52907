"""Writes cases.json: exact match and F1 by the rules of the CMRC 2018 script (version 5), with the word tokenizer of NLTK 3.10.4
(`pip install nltk==3.10.4`). Periods before a space are left out, because the script also divides sentences, with a model
that is not in the package; so are quotation marks and contractions, which Kiln divides in a simpler way."""

import json
import os
import random

from nltk.tokenize import NLTKWordTokenizer

random.seed(11)
REMOVED = set("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
PIECES = [
    *"北京大学一二年月亿元，。、《》：；（）－…—–·〇«%$#&()[]{}<>-/+=_~^*",
    "11.42", "3,500", "1998", "2.0", "rust", "GPT-2", "v1.2", "U.S", "3.14%", "°C", "é", "¥", " ", " ", "Ａ", "|", "/",
]


def normal(text):
    return "".join(char for char in text.lower().strip() if char not in REMOVED)


def segments(text):
    found, word = [], ""
    for char in normal(text):
        if "\u4e00" <= char <= "\u9fa5":
            found += [*NLTKWordTokenizer().tokenize(word), char]
            word = ""
        else:
            word += char
    return found + NLTKWordTokenizer().tokenize(word)


def longest_common(a, b):
    best = 0
    for start in range(len(a)):
        for other in range(len(b)):
            length = 0
            while start + length < len(a) and other + length < len(b) and a[start + length] == b[other + length]:
                length += 1
            best = max(best, length)
    return best


def scores(prediction, answer):
    a, b = segments(prediction), segments(answer)
    common = longest_common(a, b)
    f1 = 0.0 if common == 0 else 2 * common / (len(a) + len(b))
    return [float(normal(prediction) == normal(answer)), f1]


def case():
    pieces = random.choices(PIECES, k=random.randint(1, 9))
    first, last = sorted(random.sample(range(len(pieces) + 1), 2))
    changed = pieces[first:last] + random.choices(PIECES, k=random.randint(0, 2))
    answer, prediction = "".join(pieces), "".join(changed if random.random() < 0.8 else pieces)
    return {"prediction": prediction, "answer": answer, "scores": scores(prediction, answer)}


cases = [case() for _ in range(400)]
cases = [case for case in cases if segments(case["answer"]) and segments(case["prediction"])]
with open(os.path.join(os.path.dirname(__file__), "cases.json"), "w", encoding="utf-8") as file:
    file.write("[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]\n")
