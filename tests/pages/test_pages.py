"""Every page of the built book, in a browser: wide and phone, light and dark."""

import json
import re
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from conftest import HTML, REPOSITORY

from mmn_utils import address

pytestmark = pytest.mark.pages
VIEWS = [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)]
IMAGES = """async () => {
  const images = [...document.images];
  await Promise.all(images.map(image => { image.loading = 'eager'; return image.decode().catch(() => {}); }));
  return images.map(image => ({
    source: image.getAttribute('src').slice(0, 100), width: image.naturalWidth, alt: image.getAttribute('alt'),
    inArticle: !!image.closest('article'), isOutput: !!image.closest('.cell_output'),
    caption: image.closest('figure')?.querySelector('figcaption')?.innerText ?? ''}));
}"""
# Contrast (WCAG) of each text with the first opaque ground behind it; 3 is what large text needs.
FAINT = """() => {
  const rgba = text => { const v = text.match(/[\\d.]+/g).map(Number); return v.length < 4 ? [...v, 1] : v; };
  const light = c => { const f = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * f(c[0]) + 0.7152 * f(c[1]) + 0.0722 * f(c[2]); };
  const ground = node => { for (; node; node = node.parentElement) {
    const c = rgba(getComputedStyle(node).backgroundColor); if (c[3] > 0.5) return c; } return [255, 255, 255, 1]; };
  const texts = node => [...node.childNodes].filter(n => n.nodeType === 3);
  const own = node => texts(node).map(n => n.data.trim()).join('');
  return [...document.querySelectorAll('article *')]
    .filter(node => own(node) && node.checkVisibility() && !node.closest('svg, script, style, .headerlink'))
    .map(node => { const a = light(rgba(getComputedStyle(node).color)), b = light(ground(node));
      return [own(node).slice(0, 40), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]; })
    .filter(([, contrast]) => contrast < 3);
}"""
WIDE = """() => {
  const room = document.documentElement.clientWidth;
  const all = document.documentElement.scrollWidth <= room ? [] : [...document.querySelectorAll('body *')];
  const beyond = all.filter(node => node.getBoundingClientRect().right > room + 1);
  return beyond.slice(0, 5).map(node => node.outerHTML.slice(0, 120));
}"""


class Visit:
    """One page in one view, and all that went wrong on the way."""

    def __init__(self, browser, site, name, scheme="light", width=1280):
        self.troubles = []
        self.context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        self.page = self.context.new_page()
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.troubles.append(f"script error: {error}"))
        self.page.on("request", lambda request: self._request(request.url, site))
        self.page.on("response", lambda r: r.status >= 400 and self.troubles.append(f"{r.status}: {r.url}"))
        self.page.goto(f"{site}/{name}", wait_until="networkidle")

    def _console(self, message):
        if message.type == "error":
            self.troubles.append(f"console: {message.text}")

    def _request(self, url, site):
        if not url.startswith((site, "data:", "blob:")):
            self.troubles.append(f"request to another host: {url}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


@pytest.fixture(scope="module")
def opened(site, browser):
    """Pages in the first view, each opened once."""
    visits = {}

    def visit(name):
        if name not in visits:
            visits[name] = Visit(browser, site, name)
        return visits[name].page

    yield visit
    for visit in visits.values():
        visit.context.close()


@pytest.mark.parametrize(("scheme", "width"), VIEWS)
def test_page_loads_whole(site, browser, page_name, scheme, width):
    with Visit(browser, site, page_name, scheme, width) as visit:
        images = visit.page.evaluate(IMAGES)
        assert [image["source"] for image in images if image["width"] == 0] == []
        assert visit.page.evaluate(FAINT) == [], "text too faint to read"
        assert width > 400 or visit.page.evaluate(WIDE) == [], "wider than a phone"
        theme = visit.page.evaluate("document.documentElement.dataset.theme")
        assert theme in (scheme, None)
        assert visit.troubles == []


def test_pictures_are_told_and_outputs_are_clean(opened, page_name):
    page = opened(page_name)
    images = page.evaluate(IMAGES)
    assert [image["source"] for image in images if image["alt"] is None] == []
    assert [image["source"] for image in images if image["inArticle"] and not image["alt"].strip()] == []
    assert [image["source"] for image in images if image["isOutput"] and not image["caption"].strip()] == []
    assert page.locator("article .stderr, article .traceback").count() == 0
    assert not re.search(r"Traceback \(most recent call last\)", page.locator("body").inner_text())


def test_formulas_are_set(opened, page_name):
    page = opened(page_name)
    if formulas := page.locator("article .math").count():
        page.locator("article .math mjx-container").nth(formulas - 1).wait_for(state="attached")


def test_links_within_the_book_lead_somewhere(site, opened, page_name):
    links = opened(page_name).evaluate("[...document.querySelectorAll('a[href]')].map(a => a.href)")
    for link in {link for link in links if link.startswith(site)}:
        target = HTML / unquote(urlsplit(link).path).lstrip("/")
        target = target / "index.html" if target.is_dir() else target
        assert target.exists(), link
        fragment = unquote(urlsplit(link).fragment)
        if target.name == "explorer.html" and fragment.startswith("/"):
            assert names_a_neuron(fragment[1:]), link
        elif fragment and target.suffix == ".html":
            assert f'id="{fragment}"' in target.read_text(), link


def names_a_neuron(fragment):
    """Whether the explorer has the neuron of an address such as lm/L4/N217; a list (`?part=lm`) names none."""
    if not fragment or fragment.startswith("?"):
        return True
    part, *layer, unit = fragment.split("/")
    labels = json.loads((HTML / "explorer/data/index.json").read_text())["labels"][part]
    return int(unit[1:]) < len(labels[int(layer[0][1:]) if layer else 0])


def test_launch_buttons_open_the_source_notebook(opened, chapter):
    source, place = chapter.replace(".html", ".ipynb"), address.read(REPOSITORY)
    find = "[...document.querySelectorAll('a[href]')].map(a => a.href).filter(link => /colab|mybinder/.test(link))"
    links = set(opened(chapter).evaluate(find))
    assert {place.colab(source), place.binder(source)} <= links
    assert (REPOSITORY / source).exists()


def test_the_executed_notebook_can_be_downloaded(opened, site, chapter):
    link = opened(chapter).evaluate("document.querySelector('a.btn-download-source-button').href")
    notebook = nbformat.read(HTML / unquote(urlsplit(link).path).lstrip("/"), as_version=4)
    ran = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.execution_count]
    assert ran and any(cell.outputs for cell in ran)


def test_the_data_behind_a_chapter_can_be_downloaded(opened, chapter):
    links = opened(chapter).evaluate(
        "[...document.querySelectorAll('#data-of-this-chapter a.download')].map(a => a.href)"
    )
    names = {urlsplit(link).path.rsplit("/", 1)[1] for link in links}
    assert "numbers.json" in names
    assert all((HTML / unquote(urlsplit(link).path).lstrip("/")).stat().st_size > 0 for link in links)


def test_the_whole_site_is_small_enough_to_carry():
    if not HTML.exists():
        pytest.skip(f"no book in {HTML}; lifted by: make book")
    assert sum(path.stat().st_size for path in HTML.rglob("*") if path.is_file()) < 60e6
