"""litserve with onnxruntime's dynamic int8: what `cargo xtask bench serve --peers` puts the same load on.

    python litserve_onnx.py ENCODER CACHE THREADS

ENCODER is the checkpoint that Kiln's classifier stands on. A fresh linear layer on the mean of its hidden states stands for
the head: it costs the same as a trained one. The first line of output is the address.
"""

import os
import socket
import sys

import litserve
import numpy
import onnxruntime
import torch
import transformers


class Classifier(torch.nn.Module):
    def __init__(self, folder):
        super().__init__()
        self.encoder = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        self.head = torch.nn.Linear(self.encoder.config.hidden_size, 2)

    def forward(self, input_ids, attention_mask):
        hidden_states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).float()
        return self.head((hidden_states * mask).sum(1) / mask.sum(1))


def exported(folder, cache):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path, plain = os.path.join(cache, "classifier-int8.onnx"), os.path.join(cache, "classifier.onnx")
    if not os.path.exists(path):
        axes = {0: "batch", 1: "seq"}
        ones = torch.ones(2, 8, dtype=torch.int64)
        torch.onnx.export(
            Classifier(folder).eval(), (ones, ones), plain, input_names=["input_ids", "attention_mask"],
            output_names=["logits"], dynamic_axes={"input_ids": axes, "attention_mask": axes, "logits": {0: "batch"}},
            dynamo=False, opset_version=17)
        quantize_dynamic(plain, path + ".part", weight_type=QuantType.QInt8)
        os.replace(path + ".part", path)
    return path


class Server(litserve.LitAPI):
    def __init__(self, folder, path, threads):
        super().__init__(max_batch_size=32, batch_timeout=0.005)
        self.folder, self.path, self.threads = folder, path, threads

    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        self.session = onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder)

    def decode_request(self, request):
        return request["inputs"]

    def batch(self, inputs):
        return inputs

    def predict(self, texts):
        rows = self.tokenizer(texts, padding=True, truncation=True, max_length=512, return_tensors="np")
        feed = {name: rows[name].astype(numpy.int64) for name in ["input_ids", "attention_mask"]}
        logits = self.session.run(None, feed)[0]
        shares = numpy.exp(logits - logits.max(1, keepdims=True))
        return shares / shares.sum(1, keepdims=True)

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return [[{"label": str(at), "score": float(share)} for at, share in enumerate(output)]]


if __name__ == "__main__":
    folder, cache, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = exported(folder, cache)
    print(f"http://127.0.0.1:{port}", flush=True)
    # What it prints later would fill a pipe that nobody reads.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    litserve.LitServer(Server(folder, path, threads), accelerator="cpu", track_requests=False).run(
        host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")
