"""A `kiln serve` of small untrained models, for the scripts that try it."""

import os
import signal
import subprocess
import tempfile
from pathlib import Path


class Served:
    """The server; it ends with the block."""

    def __init__(self, kiln, ask, *options, port=0):
        """`kiln` is the program, `ask` the example of kiln-serve that writes the models."""
        self.folder = tempfile.TemporaryDirectory()
        written = subprocess.run([ask, self.folder.name], check=True, capture_output=True, text=True).stdout
        self.models = written.split()
        self.command = [kiln, "serve", *self.models, *options]
        self.process = None
        self.start(port)

    def start(self, port=0):
        # No proxy of the environment may stand between a client and loopback.
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            del os.environ[name]
        self.log = open(Path(self.folder.name) / "log", "ab")
        command = [*self.command, "--port", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http://127.0.0.1:"), self.log_text()

    def log_text(self):
        return (Path(self.folder.name) / "log").read_text(encoding="utf-8")

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        return self.process.wait(timeout=60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop(signal.SIGKILL)
        self.log.close()
        self.folder.cleanup()
