"""Every page, and every kind of view of the explorer, before axe: no grave fault, wide and light or narrow and dark."""

import pytest
from test_pages import Visit

pytestmark = pytest.mark.pages
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="axe is missing; lifted by: pip install -e '.[test]'"
)
EXPLORER = ["#/", "#/?q=dog", "#/nowhere"]
GRAVE = {"serious", "critical"}
# What the width and the ground may change; the rest of the rules see the same page twice.
OF_THE_VIEW = ["color-contrast", "scrollable-region-focusable", "link-in-text-block"]


def faults(page, within="html", **rules):
    options = {"resultTypes": ["violations"], "preload": False, **rules}
    found = axe.Axe().run(page, within, options).response["violations"]
    return [
        f"{fault['id']}: {node['html'][:200]}" for fault in found if fault["impact"] in GRAVE for node in fault["nodes"]
    ]


def both_views(visit):
    found = faults(visit.page)
    visit.page.set_viewport_size({"width": 360, "height": 800})
    visit.page.evaluate("document.documentElement.dataset.theme = 'dark'")
    visit.page.wait_for_timeout(600)  # milliseconds; the theme lets a window settle before it marks what scrolls
    return found + faults(visit.page, "main", runOnly={"type": "rule", "values": OF_THE_VIEW})


def test_axe_finds_no_serious_fault(site, browser, page_name):
    with Visit(browser, site, page_name) as visit:
        assert both_views(visit) == []


@pytest.mark.parametrize("address", [*EXPLORER, "lm", "clip", "nli"])
def test_axe_finds_no_serious_fault_in_the_explorer(site, browser, address, picked):
    with Visit(browser, site, f"explorer.html{address if address.startswith('#') else picked(address)}") as visit:
        visit.page.locator("body[data-neuron]").wait_for()
        assert both_views(visit) == []


def test_axe_would_find_a_fault(site, browser):
    with Visit(browser, site, "index.html") as visit:
        visit.page.evaluate("document.querySelector('article').append(document.createElement('img'))")
        assert any(fault.startswith("image-alt") for fault in faults(visit.page))
