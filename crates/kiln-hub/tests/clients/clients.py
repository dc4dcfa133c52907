"""Python's own clients download from the hub on loopback, and Kiln's finds what they left; then the other way round.

    python clients.py LOOPBACK

LOOPBACK is the example `loopback` of kiln-hub; the packages are those of requirements.txt. `cargo xtask ci clients` runs it.
The clients know no other hub than the true ones, so what they take from this one shows that it is like these.
"""

import ast
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

MODEL = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
DATA = "data/train 1.tsv"


class Loopback:
    """The hub, and Kiln's client, which pulls in the same process."""

    def __init__(self, program):
        self.process = subprocess.Popen(
            [program, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self.address = self.process.stdout.readline().strip()

    def __call__(self, *words):
        self.process.stdin.write("\t".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")

    def content_requests(self):
        """Those for large files since the last call."""
        return ast.literal_eval(self("requests"))[1]


class HuggingFace:
    name = f"huggingface_hub {version('huggingface_hub')}"
    prefix = "hf"
    # It compares lengths alone.
    finds_flipped_bytes = False

    def model(self, cache, offline=False):
        from huggingface_hub import snapshot_download

        return snapshot_download("owner/name", cache_dir=cache, allow_patterns=MODEL, local_files_only=offline)

    def model_files(self, cache, offline=False):
        from huggingface_hub import hf_hub_download

        return [hf_hub_download("owner/name", name, cache_dir=cache, local_files_only=offline) for name in MODEL]

    def data(self, cache, offline=False):
        from huggingface_hub import hf_hub_download

        return hf_hub_download("owner/name", DATA, repo_type="dataset", cache_dir=cache, local_files_only=offline)


class ModelScope:
    name = f"modelscope-hub {version('modelscope-hub')}"
    prefix = "modelscope"
    finds_flipped_bytes = True

    def __init__(self, address):
        self.endpoint = address

    def model(self, cache, offline=False):
        from modelscope_hub.compat.snapshot_download import snapshot_download

        return snapshot_download(
            "owner/name", cache_dir=cache, allow_patterns=MODEL, local_files_only=offline, endpoint=self.endpoint
        )

    def model_files(self, cache, offline=False):
        from modelscope_hub.compat.file_download import model_file_download

        return [
            model_file_download("owner/name", name, cache_dir=cache, local_files_only=offline, endpoint=self.endpoint)
            for name in MODEL
        ]

    def data(self, cache, offline=False):
        from modelscope_hub.compat.file_download import dataset_file_download

        return dataset_file_download(
            "owner/name", DATA, cache_dir=cache, local_files_only=offline, endpoint=self.endpoint
        )


def check(what, holds, found=""):
    print(f"  {'ok ' if holds else 'NOT'} {what}", flush=True)
    if not holds:
        sys.exit(f"{what}: found {found}")


def same(what, found, expected):
    check(what, str(found) == str(expected), f"{found}, expected {expected}")


def same_files(what, folder, names, truth):
    wrong = [name for name in names if (Path(folder) / name).read_bytes() != truth[name]]
    check(what, not wrong, wrong)


def theirs_to_ours(client, kiln, folder, truth):
    model, data = f"{client.prefix}:owner/name", f"{client.prefix}-dataset:owner/name/{DATA}"
    cache = folder / "theirs"
    theirs, theirs_data = client.model(cache), client.data(cache)
    same_files("they download the hub's files", theirs, MODEL, truth)
    kiln.content_requests()
    same("offline we find their model", kiln("offline", cache, model), theirs)
    same("offline we find their data", kiln("offline", cache, data), theirs_data)
    same("online we take their model as it is", kiln("pull", cache, model), theirs)
    same("online we take their data as it is", kiln("pull", cache, data), theirs_data)
    same("so no large file comes twice", kiln.content_requests(), [])

    single = folder / "single"
    client.model_files(single)
    kiln.content_requests()
    same("their single files are a model of ours", kiln("pull", single, model), theirs.replace("/theirs/", "/single/"))
    same("and no large file comes twice", kiln.content_requests(), [])


def ours_to_theirs(client, kiln, folder, truth):
    cache = folder / "ours"
    ours = kiln("pull", cache, f"{client.prefix}:owner/name")
    ours_data = kiln("pull", cache, f"{client.prefix}-dataset:owner/name/{DATA}")
    same_files("we download the hub's files", ours, MODEL, truth)
    check("and the data", Path(ours_data).read_bytes() == truth[DATA])
    kiln.content_requests()
    for offline in (True, False):
        word = "offline" if offline else "online"
        same(f"{word} they find our model", client.model(cache, offline), ours)
        expected = [f"{ours}/{name}" for name in MODEL]
        same(f"{word} they find its files one by one", list(map(str, client.model_files(cache, offline))), expected)
        same(f"{word} they find our data", client.data(cache, offline), ours_data)
    same("and no large file comes twice", kiln.content_requests(), [])


def flipped_byte(client, kiln, folder, truth):
    model, name = f"{client.prefix}:owner/name", "model.safetensors"
    cache = folder / "flipped"
    kiln("flip", name)
    try:
        theirs = Path(client.model(cache)) / name
        found = theirs.read_bytes() == truth[name]
        same("they call a file with a flipped byte a success", (found, client.finds_flipped_bytes), (False, False))
        answer = kiln("offline", cache, model)
        check("we refuse it offline", "damaged" in answer, answer)
        answer = kiln("pull", cache, model)
        check("and do not take the next one with a flipped byte either", "differs from the declared one" in answer, answer)
    except Exception as error:
        check(f"they refuse a flipped byte: {type(error).__name__}", client.finds_flipped_bytes, error)
        answer = kiln("pull", cache, model)
        check("and so do we", "differs from the declared one" in answer, answer)
    kiln("flip", "")
    same_files("once the hub is well we fetch it anew", kiln("pull", cache, model), MODEL, truth)


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder).resolve()
        kiln = Loopback(sys.argv[1])
        os.environ |= {
            "HF_ENDPOINT": kiln.address,
            "HF_HOME": str(folder / "hf-home"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "MODELSCOPE_HOME": str(folder / "modelscope-home"),
            # It would ask a cloud's own address which region this is.
            "MODELSCOPE_DOWNLOAD_INTRA_CLOUD": "0",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "TQDM_DISABLE": "1",
        }
        truth = {name: Path(kiln("content", name, folder / "content")).read_bytes() for name in [*MODEL, DATA]}
        for client, redirects in ((HuggingFace(), "off"), (HuggingFace(), "on"), (ModelScope(kiln.address), "off")):
            print(f"{client.name}, redirects of small files {kiln('redirects', redirects)}")
            for part in (theirs_to_ours, ours_to_theirs, flipped_byte):
                part(client, kiln, folder / f"{client.prefix}-{redirects}", truth)
        kiln.process.stdin.close()
        kiln.process.wait()


main()
