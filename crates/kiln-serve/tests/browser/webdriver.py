"""Chromium, driven by ChromeDriver's protocol (W3C WebDriver): JSON over HTTP."""

import base64
import json
import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

OPTIONS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """A browser with an empty profile; it ends with the block."""

    def __init__(self, chromium, chromedriver):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.driver = subprocess.Popen([chromedriver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in self.driver.stdout:
            if "successfully on port " in line:
                self.address = f"http://127.0.0.1:{line.rsplit('port ', 1)[1].strip().rstrip('.')}"
                break
        options = {"binary": chromium, "args": [*OPTIONS, f"--user-data-dir={self.profile.name}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        made = self.send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"/session/{made['sessionId']}"

    def send(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"content-type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {json.load(error)['value']['message'].splitlines()[0]}") from None

    def __call__(self, method, path, body=None):
        return self.send(method, self.session + path, body)

    def open(self, url):
        self("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        return self("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, selector):
        return self("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def click(self, selector):
        self("POST", f"/element/{self.find(selector)}/click", {})

    def type(self, selector, text):
        """Puts a text in the place of what is there, as keys would; keys cannot type every character."""
        self.run(
            "const field = document.querySelector(arguments[0]); field.focus(); field.select();"
            "document.execCommand('insertText', false, arguments[1])", selector, text)

    def keys(self, text):
        """Typed at the element that has the focus."""
        active = self("GET", "/element/active")[ELEMENT]
        self("POST", f"/element/{active}/value", {"text": text})

    def wait(self, what, is_so, seconds=30):
        end = time.monotonic() + seconds
        while not (found := is_so()):
            if time.monotonic() > end:
                raise AssertionError(f"{what}: {self.text('body')[:600]}")
            time.sleep(0.05)
        return found

    def size(self, width, height):
        self("POST", "/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}})

    def scheme(self, name):
        features = [{"name": "prefers-color-scheme", "value": name}]
        self("POST", "/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}})

    def picture(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self("GET", "/screenshot")))

    def complaints(self):
        """What the browser has logged as wrong: scripts that failed, and what the page's policy stopped."""
        return [entry["message"] for entry in self("POST", "/se/log", {"type": "browser"}) if entry["level"] == "SEVERE"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self("DELETE", "")
        except (OSError, AssertionError):
            pass
        self.driver.terminate()
        self.driver.wait(timeout=20)
        self.driver.stdout.close()
        self.profile.cleanup()


def installed():
    """Chromium and its driver, where both are on this machine."""
    paths = ["/usr/bin/chromium", "/usr/bin/chromedriver"]
    return paths if all(os.path.exists(path) for path in paths) else None
