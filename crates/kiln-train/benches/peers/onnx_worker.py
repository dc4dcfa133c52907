"""onnxruntime's side of `cargo xtask bench`: the same lines in and out as `torch_worker.py`, in a process of its own, because
onnxruntime's waiting threads slow whatever shares it.

The models are exported by `export_onnx.py`, which runs beforehand in another process and keeps them in `KILN_BENCH_CACHE`.
"""

import os
import subprocess
import sys
import time

import numpy
import onnxruntime

VOCABULARY, IN_A_ROW = 21_128, 20


def ids(rows, columns):
    numbers = [(i * 7919 + 13) % VOCABULARY for i in range(rows * columns)]
    return {
        "input_ids": numpy.array(numbers, dtype=numpy.int64).reshape(rows, columns),
        "attention_mask": numpy.ones((rows, columns), dtype=numpy.int64),
    }


def session(precision):
    folder = os.environ["KILN_BENCH_CACHE"]
    path = os.path.join(folder, f"bert-base-{precision}.onnx")
    if not os.path.exists(path):
        script = os.path.join(os.path.dirname(__file__), "export_onnx.py")
        subprocess.run([sys.executable, script, folder], check=True, stdout=sys.stderr)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ["KILN_BENCH_THREADS"])
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


sessions = {}
for line in sys.stdin:
    work, precision = line.split()
    if precision not in sessions:
        sessions[precision] = session(precision)
    run = sessions[precision].run
    batch, times = {"forward": (ids(8, 128), 1), "latency": (ids(1, 20), IN_A_ROW)}[work]
    start = time.perf_counter()
    for _ in range(times):
        run(None, batch)
    print((time.perf_counter() - start) / times, flush=True)
