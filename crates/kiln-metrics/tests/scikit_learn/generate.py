"""Writes cases.json: ROC-AUC, Matthews' correlation and macro F1 of random predictions, by scikit-learn 1.9.1.

    pip install scikit-learn==1.9.1 && python generate.py

Probabilities are multiples of 1/16, so that many are equal.
"""
import json, pathlib, warnings

import numpy as np
from sklearn import metrics

warnings.simplefilter("ignore")
random = np.random.default_rng(7)


def number(value):
    return None if np.isnan(value) else float(value)


def auc(*arguments, **named):
    try:
        return number(metrics.roc_auc_score(*arguments, **named))
    except ValueError:
        return None


def single(rows, num_labels, only=None):
    probabilities = random.multinomial(16, np.ones(num_labels) / num_labels, size=rows) / 16
    targets = random.integers(0, only or num_labels, size=rows)
    # Half of the rows are easy.
    easy = random.random(rows) < 0.5
    probabilities[easy] = np.eye(num_labels)[targets[easy]]
    predictions = probabilities.argmax(axis=1)
    if num_labels == 2:
        roc_auc = auc(targets, probabilities[:, 1])
    else:
        roc_auc = auc(targets, probabilities, multi_class="ovr", average="macro", labels=list(range(num_labels)))
    return {"kind": "single", "num_labels": num_labels, "probabilities": probabilities.flatten().tolist(),
            "targets": targets.tolist(), "roc_auc": roc_auc, "mcc": number(metrics.matthews_corrcoef(targets, predictions)),
            "macro_f1": number(metrics.f1_score(targets, predictions, average="macro", zero_division=0))}


def several(rows, num_labels, empty=False):
    targets = random.random((rows, num_labels)) < 0.4
    if empty:
        targets[:, 0] = False
    scores = random.integers(0, 17, size=(rows, num_labels)) / 16
    return {"kind": "several", "num_labels": num_labels, "probabilities": scores.flatten().tolist(),
            "targets": targets.astype(int).flatten().tolist(), "roc_auc": auc(targets, scores, average="macro")}


cases = [single(rows, num_labels) for rows in (5, 40) for num_labels in (2, 3, 7) for _ in range(4)]
cases += [single(30, 2, only=1), single(30, 4, only=3), single(1, 2), single(300, 2)]
cases += [several(rows, num_labels) for rows in (9, 50) for num_labels in (1, 3, 5)] + [several(30, 3, empty=True)]
pathlib.Path(__file__).with_name("cases.json").write_text("[\n" + ",\n".join(map(json.dumps, cases)) + "\n]\n")
