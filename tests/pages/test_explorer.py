"""The neuron explorer in a browser: addresses, search, keys, masks, and what it says when something is missing."""

import base64
import json

import numpy as np
import pytest
import torch
from conftest import HTML, REPOSITORY
from test_pages import WIDE, Visit

pytestmark = pytest.mark.pages
DATA = HTML / "explorer/data"
HOSTILE = ["<script>window.broken = 1</script>", '<img src=x onerror="window.broken = 1">', " \x00\x1b\u202e'\"\n", ""]
SHOWN = [
    "<script>window.broken = 1</script>",
    '<img src=x onerror="window.broken = 1">',
    "␣\\x00\\x1b\\u{202e}'\"\\n",
    "∅",
]
# Red, green and blue of every pixel.
PIXELS = """canvas => { const d = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  return [...d].filter((_, i) => i % 4 !== 3); }"""

LOADED = """Object.fromEntries(performance.getEntries().filter(e => e.decodedBodySize)
  .map(e => [e.name, e.decodedBodySize]))"""


@pytest.fixture(scope="module")
def index(site):
    return json.loads((DATA / "index.json").read_text())


@pytest.fixture
def explorer(site, browser):
    """Opens an address of the explorer; closes it, and fails on any console error or request to another host."""
    visits = []

    def open_at(address="#/", ready=True, **view):
        visits.append(Visit(browser, site, f"explorer.html{address}", **view))
        visits[-1].page.set_default_timeout(120_000)  # milliseconds: a machine may be busy with something else
        if ready:
            visits[-1].page.locator("body[data-neuron]").wait_for()
        return visits[-1].page

    yield open_at
    for visit in visits:
        visit.context.close()
    assert [trouble for visit in visits for trouble in visit.troubles] == []


def at(page, address):
    page.locator(f"body[data-neuron='{address}']").wait_for()
    return page.url.endswith(f"#/{address}")


def record(index, address):
    part, *layer, unit = address.split("/")
    unit, size = int(unit[1:]), index["shard_size"]
    shard = json.loads((DATA / "/".join([part, *layer, f"{unit // size}.json"])).read_text())
    return shard["neurons"][unit - shard["first"]]


def test_the_front_lists_the_parts_and_neurons_that_are_badly_explained(explorer, index):
    page = explorer()
    for part in index["parts"]:
        assert page.get_by_role("link", name=part["title"]).count() == 1
    kinds = page.locator(".badge").all_inner_texts()
    assert kinds == [
        pick["kind"] for part in index["parts"] for pick in index["picked"] if pick["address"].startswith(part["part"])
    ]
    assert {"badly explained", "polysemantic"} <= set(kinds)
    assert page.get_by_role("link", name="The book").get_attribute("href") == "index.html"


def test_the_first_view_is_light(explorer):
    page = explorer()
    sizes = page.evaluate(LOADED)
    assert sum(sizes.values()) < 1e6, sizes
    assert not any("/lm/" in name or "/clip/" in name for name in sizes), "shards and sheets wait until they are needed"


def test_the_first_view_takes_less_than_a_second_of_the_browsers_time(explorer, site):
    """Time that the page's thread was at work, which no other program's load lengthens."""
    page = explorer()
    page.goto("about:blank")
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(f"{site}/explorer.html")
    page.locator("body[data-neuron]").wait_for()
    metrics = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
    assert 0 < metrics["TaskDuration"] < 1


def test_every_address_opens_the_neuron_it_names(explorer, index, picked):
    page = explorer()
    for part in index["parts"]:
        neuron = record(index, picked(part["part"]).removeprefix("#/"))
        page.evaluate("hash => location.hash = hash", f"#/{neuron['address']}")
        assert at(page, neuron["address"])
        assert page.get_by_role("heading", level=1).inner_text() == neuron["name"]
        assert neuron["label"] in page.locator("article").inner_text()


def test_the_address_survives_reload_and_the_back_button_works(explorer, picked):
    address = picked("clip")
    page = explorer(address)
    page.reload()
    assert at(page, address.removeprefix("#/"))
    page.keyboard.press("ArrowRight")
    page.wait_for_url(lambda url: not url.endswith(address))
    page.go_back()
    assert at(page, address.removeprefix("#/"))


def test_arrows_step_through_the_neurons_with_examples(explorer, index):
    units = index["studied"]["clip"][0]
    page = explorer(f"#/clip/N{units[0]}")
    for unit in units[1:4]:
        page.keyboard.press("ArrowRight")
        assert at(page, f"clip/N{unit}")
    page.keyboard.press("ArrowLeft")
    assert at(page, f"clip/N{units[2]}")
    page.get_by_role("button", name="Previous").click()
    assert at(page, f"clip/N{units[1]}")
    assert page.locator("#previous").evaluate("button => button === document.activeElement"), "the focus stays"
    page.keyboard.press("r")
    page.wait_for_url(lambda url: not url.endswith(f"clip/N{units[1]}"))


def test_search_finds_words_and_arrows_stay_among_what_was_found(explorer, index):
    word = index["labels"]["clip"][0][index["studied"]["clip"][0][0]].split(",")[0]
    page = explorer()
    page.keyboard.press("/")
    page.keyboard.type(word)
    page.get_by_role("heading", name=f"for “{word}”").wait_for()
    found = page.locator(".neurons a").evaluate_all("links => links.map(a => [a.hash.slice(2), a.textContent])")
    assert found and all(word in text for _, text in found)
    page.keyboard.press("Enter")
    assert at(page, found[0][0])
    page.keyboard.press("ArrowRight")
    assert at(page, found[1 % len(found)][0])
    page.keyboard.press("Escape")
    page.get_by_role("heading", name=f"for “{word}”").wait_for()
    assert len(found) == page.locator(".neurons a").count()


@pytest.mark.parametrize("wrote", ["address", "name", "number"])
def test_search_understands_names_addresses_and_numbers(explorer, index, picked, wrote):
    neuron = record(index, picked("lm").removeprefix("#/"))
    page = explorer()
    page.locator("#query").fill(neuron[wrote] if wrote in neuron else neuron["address"].rsplit("N")[-1])
    page.locator("#query").press("Enter")
    number = neuron["address"].rsplit("N")[-1]
    page.locator("body:not([data-neuron=''])").wait_for()
    assert page.url.endswith(f"N{number}") if wrote == "number" else at(page, neuron["address"])


def test_part_and_layer_filter_what_is_found(explorer, index):
    page = explorer()
    page.locator("#part").select_option("lm")
    page.locator("#layer").select_option("1")
    n_units = len(index["studied"]["lm"][1])
    page.get_by_role("heading", name=f"{n_units} neurons").wait_for()
    assert all(h.startswith("#/lm/L1/") for h in page.locator(".neurons a").evaluate_all("all => all.map(a => a.hash)"))
    page.locator("#all").select_option("1")
    page.get_by_role("heading", name=f"{index['parts'][0]['n_units']} neurons").wait_for()


def test_masks_show_where_the_activation_exceeds_the_threshold(explorer, index, picked):
    address = picked("lm")
    neuron = record(index, address.removeprefix("#/"))
    page = explorer(address)
    canvas = page.locator(".pictures canvas[data-mode=mask]").first
    canvas.wait_for()
    masked = np.array(canvas.evaluate(PIXELS), float)
    page.locator("#mode-plain").click()
    plain = np.array(page.locator(".pictures canvas[data-mode=plain]").first.evaluate(PIXELS), float)
    side = int(np.sqrt(len(plain) / 3))
    inside = np.isclose(masked, plain).reshape(side, side, 3).all(-1)
    lit = plain.reshape(side, side, 3).max(-1) > 20  # where the picture itself is dark, a mask does not show
    assert np.array_equal(inside[lit], expected_mask(neuron, index, side)[lit])
    assert 0 < inside[lit].mean() < 1
    assert np.allclose(
        masked.reshape(side, side, 3)[lit & ~inside], plain.reshape(side, side, 3)[lit & ~inside] * 0.3, atol=1
    )


def expected_mask(neuron, index, side):
    """By the enlargement that the chapters use, in torch."""
    rows, columns = index["parts"][0]["grid"]
    group = neuron["examples"][0]
    maps = np.frombuffer(base64.b64decode(group["maps"]), np.uint8).reshape(-1, 1, rows, columns)[:1]
    low, high = neuron["scale"]
    values = torch.from_numpy(low + maps.astype("float32") / 255 * (high - low))
    large = torch.nn.functional.interpolate(values, size=(side, side), mode="bilinear", align_corners=False)
    return (large[0, 0] > neuron["threshold"]).numpy()


def test_the_map_has_a_legend_with_the_scale(explorer, index, picked):
    page = explorer(picked("lm"))
    page.keyboard.press("m")
    page.locator(".pictures canvas[data-mode=map]").first.wait_for()
    assert page.locator("#mode-map").get_attribute("aria-pressed") == "true"
    low, high = record(index, picked("lm").removeprefix("#/"))["scale"]
    shown = [float(text.replace("−", "-")) for text in page.locator("#scale .number").all_inner_texts()]
    assert shown == pytest.approx([low, high], rel=5e-3)


def test_a_part_shows_what_its_record_holds(explorer, index, picked):
    page = explorer(picked("nli"))
    neuron = record(index, picked("nli").removeprefix("#/"))
    assert neuron["formulas"][-1]["formula"] == page.locator(".formula").inner_text().strip()
    assert page.locator(".pairs li").count() == sum(len(group["pair"]) for group in neuron["examples"])
    page = explorer(picked("clip"))
    facets = record(index, picked("clip").removeprefix("#/"))["auroc"]
    assert page.get_by_role("row", name="photo").inner_text().split()[-1] == f"{facets['photo']:.3g}"


def test_text_of_a_model_stays_text(explorer, index, picked):
    address = picked("lm").removeprefix("#/")
    page = explorer()
    page.route(
        f"**/explorer/data/{address.rsplit('/', 1)[0]}/*.json",
        lambda route: route.fulfill(json=hostile(route, address)),
    )
    page.evaluate("hash => location.hash = hash", f"#/{address}")
    assert at(page, address)
    assert page.locator(".tokens").first.locator(".token").all_inner_texts() == SHOWN
    assert page.evaluate("window.broken") is None
    assert page.locator("#view script, #view img").count() == 0


def hostile(route, address):
    shard = route.fetch().json()
    for neuron in shard["neurons"]:
        if neuron and neuron["address"] == address:
            neuron["tokens"]["positive"] = HOSTILE
    return shard


def test_a_neuron_links_to_the_chapters_that_name_it(explorer, index):
    address, chapters = next(iter(index["mentions"].items()))
    page = explorer(f"#/{address}")
    for chapter in chapters:
        link = page.get_by_role("link", name=index["chapters"][chapter]["title"])
        assert (HTML / link.get_attribute("href")).exists()


def test_the_data_behind_the_page_can_be_downloaded(explorer, index, picked):
    page = explorer(picked("clip"))
    with page.expect_download() as download:
        page.locator("#download").click()
    saved = json.loads(download.value.path().read_text())
    assert saved == {
        **record(index, picked("clip").removeprefix("#/")),
        **{key: index[key] for key in ("profile", "package", "made")},
    }
    assert download.value.suggested_filename == picked("clip").removeprefix("#/").replace("/", "-") + ".json"


@pytest.mark.parametrize("address", ["#/lm/L99/N3", "#/clip/N99999", "#/nowhere", "#/%zz", "#/lm/L1/N1<b>"])
def test_an_unknown_neuron_is_told_with_what_exists(explorer, index, address):
    page = explorer(address)
    page.get_by_role("heading", name="There is no such neuron").wait_for()
    told = page.locator("#view").inner_text()
    assert all(f"N{part['n_units'] - 1}" in told for part in index["parts"])


def test_data_that_does_not_come_is_told_and_can_be_tried_again(site, browser, picked):
    with Visit(browser, site, "explorer.html") as visit:
        page = visit.page
        page.route("**/explorer/data/clip/*.json", lambda route: route.abort())
        page.evaluate("hash => location.hash = hash", picked("clip"))
        page.get_by_role("heading", name="The data did not arrive").wait_for()
        assert "clip/" in page.get_by_role("alert").inner_text()
        page.unroute("**/explorer/data/clip/*.json")
        page.get_by_role("button", name="Try again").click()
        assert at(page, picked("clip").removeprefix("#/"))


def test_opened_from_a_disk_it_says_that_it_needs_a_server(browser, site):
    page = browser.new_page()
    page.goto((HTML / "explorer.html").as_uri())
    page.get_by_role("heading", name="This page needs a server").wait_for()
    assert "python -m http.server" in page.locator("#view").inner_text()
    page.close()


def test_it_works_in_a_folder_of_a_host(browser, site, tmp_path):
    """Every path is relative: what asks for the root of the host is refused here."""
    page = browser.new_page()
    page.route(
        "**/*", lambda route: route.fulfill(path=HTML / route.request.url.split("/sub/folder/")[1].split("#")[0])
    )
    page.goto(f"{site}/sub/folder/explorer.html")
    page.locator("body[data-neuron]").wait_for()
    assert page.locator(".badge").count() > 0
    page.close()


@pytest.mark.parametrize("address", ["#/", "#/?q=dog", "lm", "clip", "nli"])
def test_a_phone_shows_all_of_it(explorer, picked, address):
    page = explorer(address if address.startswith("#") else picked(address), scheme="dark", width=360)
    assert page.evaluate(WIDE) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_colours_follow_the_system_or_the_choice_made_in_the_book(explorer):
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = explorer(scheme="dark").evaluate(ground)
    page = explorer()
    light = page.evaluate(ground)
    assert light != dark
    page.evaluate("localStorage.setItem('mode', 'dark')")
    page.reload()
    assert page.evaluate(ground) == dark
    page.goto(page.url.replace("explorer.html#/", "index.html"))
    assert page.evaluate("document.documentElement.dataset.mode") == "dark"


def test_the_help_opens_and_closes_by_key(explorer):
    page = explorer()
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()


def test_links_of_the_book_lead_to_neurons_that_exist(index):
    known = {
        f"{part['part']}/{'' if part['layers'] is None else f'L{layer}/'}N{unit}"
        for part in index["parts"]
        for layer, labels in enumerate(index["labels"][part["part"]])
        for unit in range(len(labels))
    }
    assert {pick["address"] for pick in index["picked"]} | set(index["mentions"]) <= known


def test_the_page_is_shipped_as_it_is_in_the_repository():
    source = REPOSITORY / "book/explorer"
    for path in source.rglob("*.*"):
        assert (HTML / path.relative_to(source)).read_bytes() == path.read_bytes()
