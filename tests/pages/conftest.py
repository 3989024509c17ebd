"""The built book, served on localhost, and a browser to look at it.

`MMN_REQUIRE_PAGES=1` turns a skip into a failure.
"""

import json
import os
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
HTML = Path(os.environ.get("MMN_HTML", REPOSITORY / "book/_build/html"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def pytest_generate_tests(metafunc):
    found = sorted(str(path.relative_to(HTML)) for path in HTML.rglob("*.html") if "_static" not in path.parts)
    for fixture, names in {"page_name": found, "chapter": [f for f in found if f.startswith("notebooks/")]}.items():
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, names or [None])


def lacking(reason):
    if os.environ.get("MMN_REQUIRE_PAGES"):
        pytest.fail(reason)
    pytest.skip(reason)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def site():
    if not (HTML / "index.html").exists():
        lacking(f"no book in {HTML}; lifted by: make book")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(HTML)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session")
def browser(site):
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is missing; lifted by: pip install -e '.[test]'"
    )
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        lacking(f"none of {', '.join(BROWSERS)} is installed; lifted by: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def picked(site):
    """The address of the first neuron that the front offers of a part, as it stands after explorer.html."""
    picks = json.loads((HTML / "explorer/data/index.json").read_text())["picked"]
    return lambda part: next(f"#/{pick['address']}" for pick in picks if pick["address"].startswith(f"{part}/"))
