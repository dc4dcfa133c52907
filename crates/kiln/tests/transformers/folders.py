"""Every kind of folder that Kiln saves, loaded in transformers, and transformers' folders, loaded in Kiln.

    python folders.py KILN LOGITS

KILN is the binary and LOGITS the example `logits` of kiln-predict. `cargo xtask ci clients` runs this with the packages of
crates/kiln-train/benches/peers/requirements.txt. Token ids must be the same, and logits within 1e-5 of each other.
"""

import json
import os
import random
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
# The models are small: more threads would wait for each other.
os.environ["RAYON_NUM_THREADS"] = "1"

import numpy
import torch
import transformers
from safetensors.torch import save_model
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)

KILN, LOGITS = sys.argv[1:]
torch.set_num_threads(1)
TOLERANCE = 1e-5
FRUIT = ["apple", "pear", "plum", "fig"]
TOOLS = ["saw", "drill", "axe", "knife"]
WORDS = FRUIT + TOOLS + ["the", "a", "is", "red", "old", "which", "in", "box", "##s", "Red", "Apple", ",", "?"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXTS = ["the apple is red", "a saw, a drill, an axe", "Apples IN the Box", "pear"]
PAIRS = [f"{text}\t{pair}" for text, pair in zip(TEXTS, ["which ?", "the old box", "plum", "a red fig is in the box"])]


def kiln(*arguments):
    """What a command prints, or why it failed."""
    process = subprocess.run([KILN, *map(str, arguments)], capture_output=True, text=True, encoding="utf-8")
    if process.returncode != 0:
        raise AssertionError(f"kiln {' '.join(map(str, arguments))}: {process.stderr}")
    return process.stdout


def predictions(folder, *arguments):
    return json.loads(kiln("predict", "--json", "--model", folder, *arguments))


def logits(folder, texts):
    """Kiln's token ids and logits of each text."""
    file = folder / "texts.tsv"
    file.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    process = subprocess.run([LOGITS, folder, file], capture_output=True, text=True, encoding="utf-8")
    file.unlink()
    if process.returncode != 0:
        raise AssertionError(f"Kiln cannot load {folder.name}: {process.stderr}")
    return [json.loads(line) for line in process.stdout.splitlines()]


FAILURES = []


@contextmanager
def case(name):
    """One of many: the others are checked even where this one fails."""
    try:
        yield
    except Exception as error:
        FAILURES.append(name)
        print(f"{name:<40} FAILED: {type(error).__name__}: {error}")


def compare(name, folder, model, texts, max_length=None):
    """Holds Kiln's tokens and logits against those of a transformers model."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = model.eval().float()
    furthest = 0.0
    for text, ours in zip(texts, logits(folder, texts), strict=True):
        encoded = tokenizer(
            *text.split("\t"),
            return_tensors="pt",
            return_token_type_ids=True,
            truncation=max_length is not None,
            max_length=max_length,
        )
        for ids in ["input_ids", "token_type_ids"]:
            assert encoded[ids][0].tolist() == ours[ids], f"{name}, {text!r}: {ids} {encoded[ids]} and {ours[ids]}"
        if type(model).__name__.startswith(("DistilBert", "ModernBert")):
            del encoded["token_type_ids"]
        with torch.no_grad():
            outputs = model(**encoded)
        compared = [key for key in ours if key.endswith("logits")]
        assert compared, f"{name}: no logits"
        for key in compared:
            theirs = getattr(outputs, key).flatten()
            difference = (theirs - torch.tensor(ours[key])).abs().max().item()
            assert difference <= TOLERANCE, f"{name}, {text!r}: {key} {difference} apart"
            furthest = max(furthest, difference)
    print(f"{name:<40} {furthest:.1e}")


# Folders that Kiln saves.


def write_vocabulary(folder):
    folder.mkdir()
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in SPECIAL + WORDS), encoding="utf-8")


def rows(write, count=40):
    """Lines of a tab-separated file."""
    draw = random.Random(7)
    return "".join("\t".join(write(draw)) + "\n" for _ in range(count))


def phrase(draw, words):
    return f"the {draw.choice(words)} is {draw.choice(['red', 'old'])}"


def labelled(draw):
    kind = draw.randrange(2)
    return phrase(draw, [FRUIT, TOOLS][kind]), ["fruit", "tool"][kind]


def paired(draw):
    kind = draw.randrange(2)
    return phrase(draw, FRUIT), phrase(draw, [FRUIT, TOOLS][kind]), ["yes", "no"][kind]


def several(draw):
    kinds = [kind for kind in range(2) if draw.randrange(2)]
    text = " ".join(draw.choice([FRUIT, TOOLS][kind]) for kind in kinds) or "the box"
    return text, ",".join(["fruit", "tool"][kind] for kind in kinds)


def numbered(draw):
    kind = draw.randrange(2)
    return phrase(draw, [FRUIT, TOOLS][kind]), str(kind + draw.random() / 10)


def tagged(folder):
    draw = random.Random(7)
    text = "".join(f"the\tO\n{draw.choice(FRUIT)}\tB-FRUIT\nin\tO\na\tO\nbox\tB-BOX\n\n" for _ in range(40))
    (folder / "data.conll").write_text(text)


def asked(folder):
    draw = random.Random(7)
    paragraphs = []
    for at in range(40):
        fruit = draw.choice(FRUIT)
        answers = [{"text": fruit, "answer_start": 4}]
        question = {"id": str(at), "question": "which ?", "answers": answers}
        paragraphs.append({"context": f"the {fruit} is in a box", "qas": [question]})
    (folder / "data.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))


def raw(folder):
    draw = random.Random(7)
    documents = ["".join(f"{phrase(draw, FRUIT)}\n" for _ in range(6)) for _ in range(20)]
    (folder / "data.txt").write_text("\n".join(documents))


SEQUENCES = 'task = "sequence-classification"\n'
TOKENS = 'task = "token-classification"\n'
# Its name, its recipe's keys, its data, what transformers calls it, and whether texts are pairs.
SAVED = [
    ("pooler", SEQUENCES, labelled, AutoModelForSequenceClassification, TEXTS),
    ("pairs", SEQUENCES, paired, AutoModelForSequenceClassification, PAIRS),
    (
        "several labels",
        SEQUENCES + 'model.problem_type = "multi_label_classification"\n',
        several,
        AutoModelForSequenceClassification,
        TEXTS,
    ),
    ("a number", SEQUENCES + 'model.problem_type = "regression"\n', numbered, AutoModelForSequenceClassification, TEXTS),
    ("tags", TOKENS, tagged, AutoModelForTokenClassification, TEXTS),
    ("answers", 'task = "question-answering"\n', asked, AutoModelForQuestionAnswering, PAIRS),
    ("masked words", 'task = "masked-lm"\nnext_sentence = false\n', raw, AutoModelForMaskedLM, TEXTS),
    ("next sentences", 'task = "masked-lm"\nnext_sentence = true\n', raw, AutoModelForPreTraining, PAIRS),
]
# Heads that transformers has no class for.
REFUSED = [
    ("cls pooling", SEQUENCES + 'model.pooling = "cls"\n', labelled, AutoModelForSequenceClassification),
    ("mean pooling", SEQUENCES + 'model.pooling = "mean"\n', labelled, AutoModelForSequenceClassification),
    ("hidden layers", SEQUENCES + "model.hidden_layers = [8]\n", labelled, AutoModelForSequenceClassification),
    ("tags with hidden layers", TOKENS + "model.hidden_layers = [8]\n", tagged, AutoModelForTokenClassification),
    ("tags with a random field", TOKENS + "model.crf = true\n", tagged, AutoModelForTokenClassification),
]


def saved(root, name, recipe, data, base=None):
    """The folder of a model that Kiln has trained for one epoch, on a base if there is one."""
    folder = root / name.replace(" ", "-")
    folder.mkdir()
    if data in [tagged, asked, raw]:
        data(folder)
    else:
        (folder / "data.tsv").write_text(rows(data))
    file = next(folder.glob("data.*")).name
    # What is learnt does not matter here, so the same rows may validate it.
    keys = f'train = "{file}"\nvalidation = "{file}"\n'
    if data is paired:
        keys += "text = 0\ntext_pair = 1\nlabel = 2\n"
    if data is asked:
        keys += 'format = "squad"\n'
    if "model.pooling" not in recipe and recipe.startswith(SEQUENCES):
        recipe += 'model.pooling = "pooler"\n'
    model = f'model.source = "dir:{base}"\n' if base else f'model.source = "dir:{root / "vocabulary"}"\nmodel.size = "tiny"\n'
    train = "[train]\nepochs = 1\nmax_length = 32\n"
    (folder / "recipe.toml").write_text(f"{recipe}{model}[data]\n{keys}{train}")
    kiln("pretrain" if data is raw else "train", "--recipe", folder / "recipe.toml", "--out", folder / "run")
    return folder / "run" / "model"


def check_saved(root):
    write_vocabulary(root / "vocabulary")
    for name, recipe, data, kind, texts in SAVED:
        with case(f"saved: {name}"):
            folder = saved(root, name, recipe, data)
            model = kind.from_pretrained(folder)
            compare(f"saved: {name}", folder, model, texts)
            if kind is AutoModelForSequenceClassification:
                check_scores(folder, model, texts[0])
    for name, recipe, data, kind in REFUSED:
        with case(f"saved: {name}"):
            check_refused(name, saved(root, name, recipe, data), kind)


def check_refused(name, folder, kind):
    """Nobody gets a head with random weights in place of one that transformers has no class for."""
    try:
        kind.from_pretrained(folder)
    except (KeyError, OSError, RuntimeError, ValueError) as error:
        print(f"saved: {name:<33} refused: {type(error).__name__}")
    else:
        raise AssertionError("transformers loads it with a head that Kiln did not train")


def check_scores(folder, model, text):
    """The binary's scores are those of transformers' logits."""
    parts = text.split("\t")
    flags = ["--raw", "--text", parts[0], *(["--text-pair", parts[1]] if len(parts) > 1 else [])]
    ours = predictions(folder, *flags)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        row = model.eval().float()(**tokenizer(*parts, return_tensors="pt")).logits[0]
    config = model.config
    if config.num_labels == 1:
        expected = {"score": row[0].item()}
        scores = {"score": ours["score"]}
    else:
        several = config.problem_type == "multi_label_classification"
        probabilities = row.sigmoid() if several else row.softmax(0)
        expected = {config.id2label[id]: score for id, score in enumerate(probabilities.tolist())}
        scores = ours["scores"]
    assert scores.keys() == expected.keys(), f"{folder}: {scores} and {expected}"
    for label, score in expected.items():
        assert abs(scores[label] - score) <= TOLERANCE, f"{folder}: {scores} and {expected}"


# Folders that transformers saves.


def fresh(kind, config=BertConfig, **keys):
    """A small model with random weights that are large enough to tell texts apart."""
    torch.manual_seed(7)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    if config is transformers.DistilBertConfig:
        sizes = {}
    sizes |= {"vocab_size": len(SPECIAL) + len(WORDS), "max_position_embeddings": 64, "initializer_range": 0.15}
    config = config(**{**sizes, **keys})
    model = kind(config).eval()
    with torch.no_grad():
        # Fresh biases are zero, and would hide that they are not read.
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.15)
    return model


def write(root, name, model, save=None, lower_case=True, model_max_length=64):
    folder = root / re.sub("[^a-z0-9]+", "-", name.lower())
    vocabulary = root / "words"
    if not vocabulary.exists():
        write_vocabulary(vocabulary)
    tokenizer = transformers.BertTokenizer.from_pretrained(
        vocabulary, do_lower_case=lower_case, model_max_length=model_max_length
    )
    folder.mkdir()
    if save is None:
        model.save_pretrained(folder)
    else:
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
        save(folder, model.state_dict())
    tokenizer.save_pretrained(folder)
    return folder


def edit(path, change):
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def pickled(folder, state):
    torch.save(state, folder / "pytorch_model.bin")


def pickled_in_two(folder, state):
    names = sorted(state)
    weight_map = {}
    for at, part in enumerate([names[::2], names[1::2]], 1):
        file = f"pytorch_model-{at:05}-of-00002.bin"
        torch.save({name: state[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def sharded(model, size="20KB"):
    def save(folder, state):
        model.save_pretrained(folder, max_shard_size=size)
        assert len(list(folder.glob("model-*.safetensors"))) > 1, "one shard proves nothing"

    return save


def check_files(root):
    """The same weights in all forms that they are published in."""

    def classifier():
        return fresh(BertForSequenceClassification, num_labels=3)

    for dtype in [torch.float32, torch.float16, torch.bfloat16]:
        name = str(dtype).removeprefix("torch.")
        with case(f"transformers: {name}"):
            folder = write(root, name, classifier().to(dtype))
            compare(f"transformers: {name}", folder, classifier().to(dtype), TEXTS)
    model = classifier()
    for name, save in [("sharded", sharded(model)), (".bin", pickled), ("sharded .bin", pickled_in_two)]:
        with case(f"transformers: {name}"):
            compare(f"transformers: {name}", write(root, name, model, save), model, TEXTS + PAIRS)


def check_tied(root):
    """Files with one of the names of a tied parameter, and a config whose class alone names the family."""
    for family in ["Bert", "Roberta", "DistilBert", "ModernBert"]:
        name = f"{family}ForMaskedLM"
        with case(f"transformers: one name of each tied parameter, {name}"):
            kind, config = getattr(transformers, name), getattr(transformers, f"{family}Config")
            keys = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64} if family == "DistilBert" else {}
            model = fresh(kind, config, pad_token_id=0, **keys)
            folder = write(root, name, model, lambda folder, _: save_model(model, str(folder / "model.safetensors")))
            edit(folder / "config.json", lambda config: config.pop("model_type"))
            compare(name, folder, model, TEXTS)


def check_heads(root):
    two = BertForSequenceClassification
    for name, model, texts in [
        ("pairs", fresh(two, num_labels=2), PAIRS),
        ("several labels", fresh(two, num_labels=3, problem_type="multi_label_classification"), TEXTS),
        ("one label", fresh(two, num_labels=1), PAIRS),
        ("answers", fresh(BertForQuestionAnswering), PAIRS),
        ("masked words", fresh(BertForMaskedLM), TEXTS),
        ("next sentences", fresh(BertForPreTraining), PAIRS),
        ("untied decoder", fresh(BertForMaskedLM, tie_word_embeddings=False), TEXTS),
        ("a tagger", fresh(BertForTokenClassification, num_labels=4), TEXTS),
    ]:
        with case(f"transformers: {name}"):
            folder = write(root, name, model)
            compare(f"transformers: {name}", folder, model, texts)
            if isinstance(model, two):
                check_scores(folder, model, texts[0])
            if isinstance(model, BertForTokenClassification):
                check_unnamed_tags(folder, model)


def check_unnamed_tags(folder, model):
    """A tagger's tags without names keep those that transformers gives them. The units are the tokenizer's words."""
    for text in ["the apple is red", "Apples 10€, a-box! かな x\u00ady"]:
        encoded = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt", return_offsets_mapping=True)
        words, spans = encoded.word_ids(), encoded.pop("offset_mapping")[0].tolist()
        with torch.no_grad():
            ids = model(**encoded).logits[0].argmax(1).tolist()
        first = [at for at, word in enumerate(words) if word is not None and word != words[at - 1]]
        ours = predictions(folder, "--text", text)
        tags = [(tag["start"], tag["tag"]) for tag in ours["tags"]]
        assert tags == [(spans[at][0], f"LABEL_{ids[at]}") for at in first], f"{ours}, {ids} and {words}"


def check_configs(root):
    default = BertConfig().to_dict()

    def leave_out_defaults(config):
        for key in [key for key, value in config.items() if default.get(key) == value and key != "model_type"]:
            del config[key]
        assert "id2label" not in config and "hidden_act" not in config

    model = fresh(BertForSequenceClassification)
    with case("transformers: defaults left out"):
        folder = write(root, "defaults left out", model)
        edit(folder / "config.json", leave_out_defaults)
        compare("transformers: defaults left out", folder, model, TEXTS)
        check_scores(folder, model, TEXTS[0])
    for act in ["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu", "tanh"]:
        with case(f"transformers: {act}"):
            model = fresh(BertForSequenceClassification, hidden_act=act)
            compare(f"transformers: {act}", write(root, act, model), model, TEXTS)


def check_tokenizers(root):
    """AutoTokenizer is the reference where a folder's files contradict each other."""
    model = fresh(BertForSequenceClassification)
    for lower_case in [True, False]:
        name = f"do_lower_case {not lower_case} over {lower_case}"
        with case(f"transformers: {name}"):
            folder = write(root, name, model, lower_case=lower_case)
            edit(folder / "tokenizer_config.json", lambda config: config.update(do_lower_case=not lower_case))
            compare(f"transformers: {name}", folder, model, TEXTS)
    with case("transformers: limit above positions"):
        folder = write(root, "a limit above the positions", model, model_max_length=512)
        long = " ".join(TEXTS * 10)
        compare("transformers: limit above positions", folder, model, [*TEXTS, long], max_length=64)


# Other families, and peft's adapters.

# A family's prefix of classes, the keys of its config, and its heads.
HEADS = ["SequenceClassification", "TokenClassification", "QuestionAnswering"]
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "type_vocab_size": 2,
}
MODERN = {
    **SIZES,
    "num_hidden_layers": 4,
    "local_attention": 4,
    **dict.fromkeys(["bos_token_id", "cls_token_id"], 2),
    **dict.fromkeys(["eos_token_id", "sep_token_id"], 3),
}
del MODERN["type_vocab_size"]
FAMILIES = [
    ("Roberta", SIZES, [*HEADS, "MaskedLM"]),
    ("XLMRoberta", SIZES, [*HEADS, "MaskedLM"]),
    ("Camembert", SIZES, [*HEADS, "MaskedLM"]),
    ("Ernie", {**SIZES, "use_task_id": True}, [*HEADS, "MaskedLM", "PreTraining"]),
    ("DistilBert", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}, [*HEADS, "MaskedLM"]),
    ("Electra", {**SIZES, "embedding_size": 24}, HEADS),
    ("Albert", {**SIZES, "embedding_size": 24}, [*HEADS, "MaskedLM"]),
    ("ModernBert", MODERN, [*HEADS, "MaskedLM"]),
    (
        "ModernBert",
        {
            **MODERN,
            **dict.fromkeys(["norm_bias", "attention_bias", "mlp_bias", "classifier_bias"], True),
            "decoder_bias": False,
            "tie_word_embeddings": False,
            "classifier_pooling": "mean",
            "classifier_activation": "relu",
            "hidden_activation": "silu",
            "global_attn_every_n_layers": 2,
        },
        ["SequenceClassification", "TokenClassification", "MaskedLM"],
    ),
    (
        "Albert",
        {
            **SIZES,
            "num_hidden_layers": 4,
            "num_hidden_groups": 2,
            "inner_group_num": 2,
            "hidden_act": "relu",
            "tie_word_embeddings": False,
        },
        ["SequenceClassification", "MaskedLM"],
    ),
]
# What Kiln trains for a head: the task's keys, its data, and its texts.
TRAINED = {
    "SequenceClassification": (SEQUENCES, labelled, TEXTS),
    "TokenClassification": (TOKENS, tagged, TEXTS),
    "QuestionAnswering": ('task = "question-answering"\n', asked, PAIRS),
    "MaskedLM": ('task = "masked-lm"\nnext_sentence = false\n', raw, TEXTS),
    "PreTraining": ('task = "masked-lm"\nnext_sentence = true\n', raw, PAIRS),
}


def check_families(parent):
    for at, (family, keys, heads) in enumerate(FAMILIES):
        root = parent / str(at)
        root.mkdir()
        config = getattr(transformers, f"{family}Config")
        for head in heads:
            recipe, data, texts = TRAINED[head]
            kind = getattr(transformers, f"{family}For{head}")
            name = kind.__name__
            with case(f"transformers: {name}"):
                model = fresh(kind, config, pad_token_id=0, **keys)
                base = write(root, name, model)
                compare(f"transformers: {name}", base, model, texts)
            with case(f"saved: {name}"):
                folder = saved(root, f"saved {name}", recipe, data, base=base)
                model = getattr(transformers, f"AutoModelFor{head}").from_pretrained(folder)
                assert isinstance(model, kind), f"{type(model).__name__}, not {name}"
                compare(f"saved: {name}", folder, model, texts)


# Families with random sizes and switches.

RANDOM = 4  # of each family, for each head
ACTIVATIONS = ["gelu", "gelu_new", "relu", "silu", "tanh", "gelu_pytorch_tanh", "quick_gelu"]


def random_sizes(draw, widths):
    heads = draw.choice([1, 2, 3, 4])
    return {
        "hidden_size": heads * draw.choice([width for width in widths if heads * width >= 12]),
        "num_attention_heads": heads,
        "num_hidden_layers": draw.choice([1, 2, 3, 5]),
        "intermediate_size": draw.choice([1, 7, 30, 64]),
        "max_position_embeddings": draw.choice([40, 64, 77]),
        # Of tokens that no text has.
        "pad_token_id": draw.choice([0, 4]),
        "tie_word_embeddings": draw.random() < 0.7,
    }


def random_bert(draw):
    return {
        **random_sizes(draw, [5, 8, 12, 16, 17]),
        "hidden_act": draw.choice(ACTIVATIONS),
        "layer_norm_eps": draw.choice([1e-12, 1e-7, 1e-5, 1e-3]),
        "type_vocab_size": draw.choice([1, 2, 3]),
    }


def random_modern(draw):
    layers = (keys := random_sizes(draw, [2, 8, 12, 16]))["num_hidden_layers"]
    every = {"global_attn_every_n_layers": draw.choice([1, 2, 3, 4])}
    if draw.random() < 0.3:
        every = {"layer_types": [draw.choice(["full_attention", "sliding_attention"]) for _ in range(layers)]}
    return {
        **MODERN,
        **keys,
        **every,
        **{f"{key}_bias": draw.random() < 0.5 for key in ["norm", "attention", "mlp", "classifier", "decoder"]},
        "hidden_activation": draw.choice(ACTIVATIONS),
        "classifier_activation": draw.choice(ACTIVATIONS),
        "classifier_pooling": draw.choice(["cls", "mean"]),
        "norm_eps": draw.choice([1e-7, 1e-5, 1e-3]),
        "local_attention": draw.choice([1, 2, 3, 4, 7, 8, 128]),
        "global_rope_theta": draw.choice([1.0, 37.5, 160000.0, 1e6]),
        "local_rope_theta": draw.choice([10.0, 10000.0]),
    }


def random_distilbert(draw):
    keys = random_sizes(draw, [5, 8, 12, 16])
    names = {
        "hidden_size": "dim",
        "num_attention_heads": "n_heads",
        "num_hidden_layers": "n_layers",
        "intermediate_size": "hidden_dim",
    }
    more = {"activation": draw.choice(["gelu", "relu"]), "sinusoidal_pos_embds": draw.random() < 0.3}
    return {names.get(key, key): value for key, value in keys.items()} | more


def random_albert(draw):
    groups = draw.choice([1, 2, 3])
    return {
        **random_bert(draw),
        "num_hidden_groups": groups,
        "num_hidden_layers": groups * draw.choice([1, 2]) + draw.choice([0, 1]),
        "inner_group_num": draw.choice([1, 2]),
        "embedding_size": draw.choice([1, 12, 24, 64]),
    }


def random_electra(draw):
    keys = random_bert(draw)
    return keys | {"embedding_size": draw.choice([keys["hidden_size"], 12, 40])}


def random_ernie(draw):
    return random_bert(draw) | {"use_task_id": draw.random() < 0.5, "task_type_vocab_size": draw.choice([1, 3])}


RANDOM_FAMILIES = {
    "Bert": (random_bert, [*HEADS, "MaskedLM", "PreTraining"]),
    "Roberta": (random_bert, [*HEADS, "MaskedLM"]),
    "XLMRoberta": (random_bert, [*HEADS, "MaskedLM"]),
    "Camembert": (random_bert, [*HEADS, "MaskedLM"]),
    "Ernie": (random_ernie, [*HEADS, "MaskedLM", "PreTraining"]),
    "DistilBert": (random_distilbert, [*HEADS, "MaskedLM"]),
    "Electra": (random_electra, HEADS),
    "Albert": (random_albert, [*HEADS, "MaskedLM"]),
    "ModernBert": (random_modern, [*HEADS, "MaskedLM"]),
}


def check_random(root):
    draw = random.Random(7)
    for family, (keys_of, heads) in RANDOM_FAMILIES.items():
        for head in heads:
            kind, config = (getattr(transformers, f"{family}{name}") for name in [f"For{head}", "Config"])
            for at in range(RANDOM):
                keys = keys_of(draw)
                dtype = draw.choice([torch.float32, torch.float32, torch.float16, torch.bfloat16])
                save = draw.choice([None, None, "sharded", pickled, pickled_in_two])
                name = f"random: {kind.__name__} {at}"
                with case(f"{name} {keys} {dtype} {save}"):
                    if head == "SequenceClassification":
                        keys["num_labels"] = draw.choice([1, 2, 5])
                    model = fresh(kind, config, **keys).to(dtype)
                    folder = write(root, name, model, sharded(model, 2000) if save == "sharded" else save)
                    # Not `model`, whose rotary frequencies were rounded with its weights.
                    model = kind.from_pretrained(folder, dtype=torch.float32)
                    pairs = keys.get("type_vocab_size", 2) > 1
                    texts = PAIRS if pairs and head in ["QuestionAnswering", "PreTraining"] else TEXTS + PAIRS * pairs
                    compare(name, folder, model, texts)
                    check_vectors(name, folder, model)


def check_vectors(name, folder, model):
    """The mean of the hidden states, as `kiln embed` has it."""
    out = folder / "vectors.npy"
    file = folder / "texts.txt"
    file.write_text("\n".join(TEXTS))
    kiln("embed", "--model", folder, "--file", file, "--out", out, "--pooling", "mean")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text, ours in zip(TEXTS, numpy.load(out), strict=True):
        with torch.no_grad():
            encoded = tokenizer(text, return_tensors="pt")
            inputs = {key: encoded[key] for key in ["input_ids", "attention_mask"]}
            theirs = model.base_model(**inputs).last_hidden_state[0].mean(0)
        difference = (theirs - torch.tensor(ours)).abs().max().item()
        assert difference <= TOLERANCE, f"{name}, {text!r}: vectors {difference} apart"


def check_adapters(root):
    """Kiln's adapters in peft, and peft's in Kiln."""
    from peft import LoraConfig, TaskType

    kinds = [
        (BertForSequenceClassification, "SequenceClassification", TaskType.SEQ_CLS, BertConfig, ["query", "value"]),
        (BertForTokenClassification, "TokenClassification", TaskType.TOKEN_CLS, BertConfig, ["key", "output.dense"]),
        (BertForQuestionAnswering, "QuestionAnswering", TaskType.QUESTION_ANS, BertConfig, ["query"]),
        (
            transformers.RobertaForSequenceClassification,
            "SequenceClassification",
            TaskType.SEQ_CLS,
            transformers.RobertaConfig,
            ["query", "value"],
        ),
        (
            transformers.ModernBertForTokenClassification,
            "TokenClassification",
            TaskType.TOKEN_CLS,
            transformers.ModernBertConfig,
            ["Wqkv", "mlp.Wo"],
        ),
        (
            transformers.AlbertForSequenceClassification,
            "SequenceClassification",
            TaskType.SEQ_CLS,
            transformers.AlbertConfig,
            ["query", "ffn"],
        ),
    ]
    for kind, head, task_type, config, targets in kinds:
        name = kind.__name__
        keys = {} if config is BertConfig else {"pad_token_id": 0, "type_vocab_size": 2}
        keys = MODERN | {"pad_token_id": 0} if config is transformers.ModernBertConfig else keys
        base = write(root, f"base of {name}", fresh(kind, config, **keys))
        for variant in ["lora", "rslora", "dora", "rsdora"]:
            with case(f"in peft: {variant} of {name}"):
                in_peft(root, f"{variant} of {name}", base, head, {"variant": variant, "target_modules": targets})
        with case(f"from peft: {name}"):
            settings = LoraConfig(task_type=task_type, r=3, target_modules=targets, use_dora=True, use_rslora=True)
            from_peft(root, name, base, kind, settings, texts=TRAINED[head][2])

    base = write(root, "base of choices", fresh(BertForSequenceClassification, BertConfig))
    for name, choice in CHOICES.items():
        with case(f"in peft: {name}"):
            in_peft(root, name, base, "SequenceClassification", choice)
        with case(f"from peft: {name}"):
            settings = LoraConfig(task_type=TaskType.SEQ_CLS, r=3, **choice)
            from_peft(root, name, base, BertForSequenceClassification, settings, TEXTS)


# Ways to choose layers, by the names that peft and Kiln share.
CHOICES = {
    "a pattern, ranks and alphas": {
        "target_modules": r".*\.self\.(query|value)|.*\.layer\.0\..*dense",
        "rank_pattern": {"value": 2, "self.query": 5},
        "alpha_pattern": {r"layer\.0\..*": 24.0},
    },
    "layers by number, and others left out": {
        "target_modules": ["query", "dense"],
        "exclude_modules": ["attention.output.dense"],
        "layers_to_transform": [1],
        "layers_pattern": "layer",
    },
}


def toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def in_peft(root, name, base, head, keys):
    """Trains an adapter with Kiln and holds what peft makes of it against the merged model."""
    from peft import PeftModel

    recipe, data, texts = TRAINED[head]
    adapter = "".join(f"adapter.{key} = {toml(value)}\n" for key, value in keys.items())
    folder = saved(root, f"in peft {name}", f'{recipe}model.encoder = "lora"\n{adapter}', data, base=base)
    model = getattr(transformers, f"AutoModelFor{head}").from_pretrained(
        base, num_labels=labels_of(folder), ignore_mismatched_sizes=True
    )
    model = PeftModel.from_pretrained(model, folder.parent / "adapter")
    # peft's own class for question answering does not pass token types on.
    compare(f"in peft: {name}", folder, model.get_base_model(), texts)


def from_peft(root, name, base, kind, settings, texts):
    """Has peft make an adapter, merges it with Kiln and holds that against peft's model."""
    from peft import get_peft_model

    torch.manual_seed(7)
    model = get_peft_model(kind.from_pretrained(base), settings)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key or "modules_to_save" in key:
                parameter.normal_(0, 0.15)
    adapter = root / f"adapter of {name}"
    model.save_pretrained(adapter)
    merged = root / f"merged {name}"
    kiln("merge", "--model", base, "--adapter", adapter, "--out", merged)
    compare(f"from peft: {name}", merged, model.get_base_model(), texts)


def labels_of(folder):
    """How many labels a model has; 2 where they have no names."""
    return len(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("id2label", "01"))


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KILN_CACHE"] = str(Path(folder) / "cache")
        checks = [
            check_saved,
            check_files,
            check_tied,
            check_heads,
            check_configs,
            check_tokenizers,
            check_families,
            check_random,
            check_adapters,
        ]
        for check in checks:
            root = Path(folder) / check.__name__
            root.mkdir()
            check(root)
    if FAILURES:
        sys.exit(f"{len(FAILURES)} of the folders above failed: {', '.join(FAILURES)}")


main()
