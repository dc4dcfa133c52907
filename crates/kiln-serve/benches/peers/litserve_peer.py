"""litserve with dynamic batching over an int8 model: what `cargo xtask bench serve --peers` puts the same load on.

    python litserve_peer.py onnxruntime|openvino ENCODER TEXTS CACHE THREADS

ENCODER is the checkpoint that Kiln's classifier stands on. A fresh linear layer on the mean of its hidden states stands for
the head: it costs the same as a trained one. onnxruntime's model is quantized dynamically. OpenVINO's is NNCF's post-training
quantization, calibrated on the first texts of TEXTS, a file with one before the first tab of each line. The first line of
output is the address.
"""

import os
import socket
import sys
import tempfile

import litserve
import numpy
import torch
import transformers

CALIBRATION, MAX_LENGTH = 300, 512
INPUTS = ["input_ids", "attention_mask"]


class Classifier(torch.nn.Module):
    def __init__(self, folder):
        super().__init__()
        self.encoder = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        self.head = torch.nn.Linear(self.encoder.config.hidden_size, 2)

    def forward(self, input_ids, attention_mask):
        hidden_states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).float()
        return self.head((hidden_states * mask).sum(1) / mask.sum(1))


def encoded(tokenizer, texts):
    rows = tokenizer(texts, padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="np")
    return {name: rows[name].astype(numpy.int64) for name in INPUTS}


class Onnxruntime:
    """Files are made once, so that a second start is as fast as a deployed model's."""

    file = "classifier-int8.onnx"

    @staticmethod
    def export(folder, texts, path):
        from onnxruntime.quantization import QuantType, quantize_dynamic

        plain, axes = path + ".plain", {0: "batch", 1: "seq"}
        ones = torch.ones(2, 8, dtype=torch.int64)
        torch.onnx.export(
            Classifier(folder).eval(), (ones, ones), plain, input_names=INPUTS, output_names=["logits"],
            dynamic_axes={"input_ids": axes, "attention_mask": axes, "logits": {0: "batch"}}, dynamo=False,
            opset_version=17)
        quantize_dynamic(plain, path, weight_type=QuantType.QInt8)

    def __init__(self, path, threads):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def logits(self, feed):
        return self.session.run(None, feed)[0]


class Openvino:
    file = "classifier-int8.xml"

    @staticmethod
    def export(folder, texts, path):
        import nncf
        import openvino

        ones = torch.ones(2, 8, dtype=torch.int64)
        model = openvino.convert_model(Classifier(folder).eval(), example_input=dict.fromkeys(INPUTS, ones))
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        rows = nncf.Dataset([encoded(tokenizer, [text]) for text in texts[:CALIBRATION]])
        openvino.save_model(nncf.quantize(model, rows, model_type=nncf.ModelType.TRANSFORMER), path)

    def __init__(self, path, threads):
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        self.model = openvino.Core().compile_model(path, "CPU", settings)

    def logits(self, feed):
        return self.model(feed)[0]


class Server(litserve.LitAPI):
    def __init__(self, engine, folder, path, threads):
        super().__init__(max_batch_size=32, batch_timeout=0.005)
        self.engine, self.folder, self.path, self.threads = engine, folder, path, threads

    def setup(self, device):
        self.model = self.engine(self.path, self.threads)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder)

    def decode_request(self, request):
        return request["inputs"]

    def batch(self, inputs):
        return inputs

    def predict(self, texts):
        logits = self.model.logits(encoded(self.tokenizer, texts))
        shares = numpy.exp(logits - logits.max(1, keepdims=True))
        return shares / shares.sum(1, keepdims=True)

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return [[{"label": str(at), "score": float(share)} for at, share in enumerate(output)]]


if __name__ == "__main__":
    engine = {"onnxruntime": Onnxruntime, "openvino": Openvino}[sys.argv[1]]
    folder, texts, cache, threads = sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])
    # What the engines print would be taken for the address, and later fill a pipe that nobody reads.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    path = os.path.join(cache, engine.file)
    if not os.path.exists(path):
        with open(texts, encoding="utf-8") as file:
            calibration = [line.split("\t")[0] for line in file]
        with tempfile.TemporaryDirectory(dir=cache) as part:
            engine.export(folder, calibration, os.path.join(part, engine.file))
            # OpenVINO's `.bin` before the `.xml` that a later run looks for.
            for name in sorted(os.listdir(part)):
                os.replace(os.path.join(part, name), os.path.join(cache, name))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    print(f"http://127.0.0.1:{port}", file=answers, flush=True)
    litserve.LitServer(Server(engine, folder, path, threads), accelerator="cpu", track_requests=False).run(
        host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")
