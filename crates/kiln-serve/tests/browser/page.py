"""The page of `kiln serve` in a real browser: every task, a long text, errors, and a server that goes away.

    python page.py KILN ASK [PICTURES]

KILN is the program, ASK the example `ask` of kiln-serve, which writes a small model of each task. With a folder PICTURES
there are screenshots of every task at two widths, in both themes and both languages. `cargo xtask ci browser` runs it.
"""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "clients"))

from served import Served  # noqa: E402
from webdriver import Browser, installed  # noqa: E402

TEXT = "酒店位置好房间很干净屏幕太暗"


class Page:
    def __init__(self, browser, served):
        self.browser, self.served = browser, served

    def choose(self, model):
        self.browser.open(f"{self.served.url}/#{model}")
        self.browser.run("location.reload()")
        self.browser.wait("the models are listed", lambda: self.browser.run(
            "const list = document.getElementById('model'); return list && list.value") == model)

    def ask(self, text, pair=None):
        """Types, and waits for the answer to just this."""
        if pair is not None:
            self.browser.type("#pair", pair)
        self.browser.type("#text", text)
        self.browser.wait("an answer to what was typed", lambda: self.browser.run(
            "return shown !== null && JSON.stringify(shown.asked) === JSON.stringify(body())"))
        return self.browser.text("#status")

    def count(self, selector):
        return self.browser.run("return document.querySelectorAll(arguments[0]).length", selector)

    def served_answer(self, model, body):
        request = urllib.request.Request(
            f"{self.served.url}/models/{model}", json.dumps(body).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)


def labels(page):
    page.choose("reviews")
    status = page.ask(TEXT)
    best = page.served_answer("reviews", {"inputs": TEXT})[0][0]
    assert best["label"] in status and "ms" in status, status
    assert page.browser.text("#result li:first-child .name") == best["label"]
    assert page.count("#result li") == 2
    width = page.browser.run("return document.querySelector('#result .fill').style.width")
    assert abs(float(width.rstrip("%")) - 100 * best["score"]) < 0.01, width
    assert "int8" not in page.browser.text("#details") and "f32" in page.browser.text("#details")
    page.ask(TEXT, pair="房间")
    assert "text_pair" in page.browser.text("#curl")
    page.choose("topics")
    page.ask(TEXT)
    assert page.count("#result li") == 3


def number(page):
    page.choose("ranks")
    page.ask(TEXT, pair="房间")
    expected = page.served_answer("ranks", {"inputs": {"text": TEXT, "text_pair": "房间"}})[0][0]["score"]
    assert page.browser.text("#result .number") == f"{expected:.4f}"


def entities(page):
    page.choose("names")
    # White space around it and characters of two UTF-16 units before it must not move the marks.
    text = "  😀" + TEXT
    page.ask(text)
    found = page.served_answer("names", {"inputs": text.strip()})
    marks = page.browser.run(
        "return [...document.querySelectorAll('#result mark')].map(mark => [mark.firstChild.textContent, mark.lastChild.textContent])")
    assert marks == [[entity["word"], entity["entity_group"]] for entity in found] and marks, marks
    assert page.browser.run("return document.querySelector('.passage').textContent").startswith("😀")


def answer(page):
    page.choose("answers")
    page.ask("酒店", pair=TEXT)
    found = page.served_answer("answers", {"inputs": {"question": "酒店", "context": TEXT}})
    assert page.browser.text("#result mark") == found["answer"]
    assert page.browser.run("return document.querySelector('.passage').textContent") == TEXT


def masks(page):
    page.choose("masks")
    page.browser.type("#text", "房")
    page.browser.click("#mask")
    page.browser.wait("candidates", lambda: page.count("#result li") == 8)
    found = page.served_answer("masks", {"inputs": "房[MASK]", "parameters": {"top_k": 8}})
    assert page.browser.text("#result li:first-child .name") == found[0]["token_str"]
    page.ask("[MASK]间[MASK]")
    assert page.count("#result ol") == 2


def vectors(page):
    page.choose("vectors")
    assert "32" in page.ask(TEXT)
    status = page.ask(TEXT, pair=TEXT)
    assert "1.0000" in status, status


def long_text(page):
    page.choose("names")
    page.ask(TEXT * 300)
    assert page.browser.run("return document.querySelector('.passage').scrollHeight > innerHeight / 2")
    assert page.browser.run("return document.documentElement.scrollWidth <= innerWidth"), "it is wider than the window"
    page.choose("reviews")
    page.browser.type("#text", TEXT * 300)
    message = page.browser.wait("it says that the text is too long", lambda: page.browser.text("#error"))
    assert "takes 64" in message, message
    page.ask(TEXT)
    assert not page.browser.text("#error"), "the message goes"


def markup_is_text(page):
    page.choose("names")
    page.ask("<img src=x onerror=alert(1)><b>a")
    assert page.count("#result img") == 0 and page.count("#result b") == 0


def keyboard(page):
    """Everything is reached and used without a mouse, and has a name for a screen reader."""
    page.choose("reviews")
    page.browser.type("#text", TEXT)
    reached = set()
    for _ in range(14):
        page.browser.keys("\ue004")
        reached.add(page.browser.run("return document.activeElement.id || document.activeElement.tagName"))
    assert {"language", "theme", "model", "text", "pair", "copy", "curl"} <= reached, reached
    page.browser.run("document.querySelector('button.main').focus()")
    page.browser.keys("\ue007")
    page.browser.wait("an answer", lambda: page.count("#result li") == 2)
    names = page.browser.run(
        "return [...document.querySelectorAll('input, select, textarea')].filter(field => field.offsetParent)"
        ".map(field => field.labels[0]?.innerText)")
    assert all(names) and len(names) == 3, names
    assert page.browser.run("return document.querySelector('#status').getAttribute('aria-live')") == "polite"


def languages_and_themes(page):
    page.choose("reviews")
    page.ask(TEXT)
    first = page.browser.text("main")
    page.browser.click("#language")
    second = page.browser.text("main")
    assert ("模型信息" in first) != ("模型信息" in second) and "undefined" not in first + second
    assert page.browser.run("return document.documentElement.lang") in {"en", "zh-CN"}
    page.browser.click("#language")
    ground = lambda: page.browser.run("return getComputedStyle(document.body).backgroundColor")  # noqa: E731
    grounds = set()
    for scheme in ["light", "dark"]:
        page.browser.scheme(scheme)
        grounds.add(ground())
    assert len(grounds) == 2, grounds
    for _ in range(3):
        page.browser.click("#theme")
        assert ground() in grounds


def command(page):
    """The command on the page, run by a shell, gets what the page shows."""
    page.choose("reviews")
    text = "it's 房间 \"很\" $HOME\n干净"
    page.ask(text)
    shown = page.browser.run("return document.querySelector('#curl').textContent")
    output = subprocess.run(["bash", "-c", shown + " --silent"], check=True, capture_output=True, text=True).stdout
    assert json.loads(output) == page.served_answer("reviews", {"inputs": text})
    page.browser.click("#copy")
    page.browser.wait("it says whether it was copied", lambda: page.browser.text("#copied"))


def server_goes_away(page):
    page.choose("reviews")
    page.ask(TEXT)
    port = page.served.url.rsplit(":", 1)[1]
    page.served.stop()
    page.browser.type("#text", "房间")
    page.browser.wait("it says that the server is gone", lambda: "server" in page.browser.text("#error") or "服务器" in page.browser.text("#error"))
    page.served.start(port)
    page.browser.wait("it goes on by itself", lambda: page.count("#result li") == 2 and not page.browser.text("#error"))


def documentation(page):
    page.browser.open(f"{page.served.url}/docs")
    page.browser.wait("the routes are listed", lambda: page.count(".opblock") >= 15)
    # The example that a route's form begins with is answered.
    for control in ["[id$=predict] .opblock-summary-control", ".try-out__btn", ".execute"]:
        page.browser.wait(f"{control} is there", lambda: page.count(control))
        page.browser.run("document.querySelector(arguments[0]).click()", control)
    page.browser.wait("the server answers", lambda: page.count(".live-responses-table .response-col_status"))
    answer = page.browser.text(".live-responses-table")
    assert "200" in answer and '"score"' in answer, answer


def pictures(page, folder):
    folder.mkdir(parents=True, exist_ok=True)
    asked = {"reviews": [TEXT], "topics": [TEXT], "ranks": [TEXT, "房间"], "names": [TEXT * 3], "answers": ["酒店", TEXT * 2],
             "masks": ["房[MASK]很好[MASK]"], "vectors": [TEXT, "房间"]}
    for language in ["zh", "en"]:
        page.browser.open(page.served.url)
        page.browser.run("localStorage.setItem('language', arguments[0])", language)
        for width in [1280, 390]:
            page.browser.size(width, 900)
            for scheme in ["light", "dark"]:
                page.browser.scheme(scheme)
                view = f"{width}-{scheme}-{language}.png"
                for model, texts in asked.items():
                    page.choose(model)
                    page.ask(*texts)
                    page.browser.picture(folder / f"{model}-{view}")
                page.choose("reviews")
                page.browser.type("#text", TEXT * 300)
                page.browser.wait("it says that the text is too long", lambda: page.browser.text("#error"))
                page.browser.picture(folder / f"error-{view}")
                page.browser.open(f"{page.served.url}/docs")
                page.browser.wait("the routes are listed", lambda: page.count(".opblock") >= 15)
                page.browser.picture(folder / f"docs-{view}")


TESTS = [labels, number, entities, answer, masks, vectors, long_text, markup_is_text, keyboard, languages_and_themes, command,
         server_goes_away, documentation]


def main(kiln, ask, folder=None):
    programs = installed()
    assert programs, "there is no chromium with its chromedriver"
    with Served(kiln, ask) as served, Browser(*programs) as browser:
        page = Page(browser, served)
        for test in TESTS:
            test(page)
            # What the tests ask for is refused once, and unanswered while the server is away.
            wrong = [line for line in browser.complaints() if "422" not in line and "ERR_CONNECTION" not in line]
            assert not wrong, wrong
            print(f"page           {test.__name__}")
        if folder:
            pictures(page, Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
