"""Hugging Face's and OpenAI's own clients, and curl, ask a running `kiln serve`.

    python clients.py KILN ASK

KILN is the program, ASK the example `ask` of kiln-serve, which writes a small model of each task; the packages are those of
requirements.txt. `cargo xtask ci clients` runs it. The clients parse what comes back, so that it passes shows that the
shapes are theirs.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import openai
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from served import Served

KEY = "0123456789abcdef"
TEXT = "酒店位置好房间很干净屏幕太暗"


def hugging_face(url):
    def client(model=None):
        return InferenceClient(model=f"{url}/models/{model}" if model else url, token=KEY)

    labels = client().text_classification(TEXT)
    assert {label.label for label in labels} == {"negative", "positive"}, labels
    assert labels[0].score >= labels[1].score
    assert len(client("topics").text_classification(TEXT, top_k=2)) == 2
    entities = client("names").token_classification(TEXT)
    assert entities and all(TEXT[entity.start : entity.end] == entity.word for entity in entities), entities
    answer = client("answers").question_answering(question="酒店", context=TEXT)
    assert TEXT[answer.start : answer.end] == answer.answer, answer
    candidates = client("masks").fill_mask("房[MASK]很好", top_k=3)
    assert len(candidates) == 3 and candidates[0].sequence == f"房{candidates[0].token_str}很好", candidates
    vectors = client("vectors").feature_extraction(TEXT, normalize=True)
    assert vectors.shape == (1, 32) and abs(np.linalg.norm(vectors) - 1) < 1e-5, vectors
    cosines = client("vectors").sentence_similarity(TEXT, other_sentences=[TEXT, "房间"])
    assert abs(cosines[0] - 1) < 1e-5 and cosines[1] < 1, cosines
    try:
        client().text_classification("房" * 100)
    except HfHubHTTPError as error:
        assert error.response.status_code == 422 and "takes 64" in str(error), error
    else:
        raise AssertionError("a text that is too long was taken")
    return "text, token and answer classification, fill-mask, feature extraction, similarity"


def open_ai(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY)
    assert "vectors" in [model.id for model in client.models.list()]
    texts = [TEXT, "房间"] * 50
    encoded = client.embeddings.create(model="vectors", input=texts)
    plain = client.embeddings.create(model="vectors", input=texts, encoding_format="float")
    for index, (a, b) in enumerate(zip(encoded.data, plain.data, strict=True)):
        assert a.index == index and np.allclose(a.embedding, b.embedding, atol=1e-7)
    short = client.embeddings.create(model="vectors", input=TEXT, dimensions=8)
    assert len(short.data[0].embedding) == 8 and short.usage.prompt_tokens == len(TEXT) + 2
    for call, error_class in [
        (lambda: client.embeddings.create(model="vectors", input=[[1, 2, 3]]), openai.BadRequestError),
        (lambda: client.embeddings.create(model="gpt", input="房"), openai.NotFoundError),
        (lambda: client.with_options(api_key="wrong").models.list(), openai.AuthenticationError),
    ]:
        try:
            call()
        except error_class as error:
            assert error.message, error
        else:
            raise AssertionError(f"there was no {error_class.__name__}")
    return "embeddings as base64 and as numbers, models, errors"


def curl(url):
    def ask(*arguments):
        command = ["curl", "--silent", "--show-error", "--fail-with-body", "-H", f"authorization: Bearer {KEY}", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8").stdout

    def post(path, body):
        return json.loads(ask(url + path, "-H", "content-type: application/json", "-d", json.dumps(body)))

    assert post("/predict", {"inputs": TEXT})[0]["label"] in {"negative", "positive"}
    assert len(post("/predict", {"inputs": [["a"], ["a", "b"]]})) == 2
    assert len(post("/embed", {"inputs": [TEXT, "房"]})) == 2
    assert [rank["index"] for rank in post("/rerank", {"query": "房", "texts": ["a"]})] == [0]
    assert post("/tokenize", {"inputs": "房"})[0][1]["text"] == "房"
    assert len(json.loads(ask(f"{url}/info"))["models"]) == 7
    assert json.loads(ask(f"{url}/v2/health/ready"))["ready"]
    assert "kiln_requests_total" in ask(f"{url}/metrics")
    assert json.loads(ask(f"{url}/openapi.json"))["openapi"].startswith("3.")
    return "predict, embed, rerank, tokenize, info, health, metrics"


def main(kiln, ask):
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys"
        keys.write_text(f"test:{KEY}\n", encoding="utf-8")
        with Served(kiln, ask, "--key-file", str(keys)) as served:
            for client in [hugging_face, open_ai, curl]:
                print(f"{client.__name__:<14} {client(served.url)}")
            assert served.stop() == 0, served.log_text()
            assert KEY not in served.log_text() and TEXT not in served.log_text()


if __name__ == "__main__":
    main(*sys.argv[1:])
