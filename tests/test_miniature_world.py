import hashlib
import itertools

import numpy as np
import pytest

from mmn_utils.data import CocoScenes
from mmn_utils.miniature import art, world
from mmn_utils.miniature.concepts import concepts

COCO_NAMES = """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli,
carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote,
keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush"""
COCO = {" ".join(name.split()) for name in COCO_NAMES.split(",")}
WORDS = {c.word for c in concepts()}


@pytest.fixture(scope="module")
def scenes():
    """A hundred scenes of one seed."""
    return [world.scene((0, world.SPLIT_SEEDS["val"], k)) for k in range(100)]


def digest(made):
    return hashlib.sha256(made.image.tobytes() + made.masks.tobytes() + repr(made.words).encode()).hexdigest()


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_concepts():
    assert len(COCO) == 80, "the list above is COCO's"
    assert len(concepts()) >= 100 and len(WORDS) == len(concepts()), "one concept a word"
    assert all(c.word.isalpha() and c.word.islower() for c in concepts()), "one English word each"
    named = [c.coco for c in concepts() if c.coco]
    assert set(named) <= COCO and len(set(named)) >= 40
    assert all(c.family and c.icon and c.sense >= 1 for c in concepts())


@pytest.mark.parametrize(("word", "said"), [("dog", "a dog"), ("apple", "an apple"), ("scissors", "some scissors")])
def test_articles(word, said):
    assert next(c for c in concepts() if c.word == word).with_article == said


def test_every_concept_is_drawn_in_every_style():
    assert len(art.STYLES) == 5
    sheets = np.stack([art.sprites(style) for style in art.STYLES])
    assert sheets.shape == (5, len(concepts()), 64, 64, 4) and sheets.dtype == np.uint8
    drawn = (sheets[..., 3] > 127).sum(axis=(2, 3))
    assert drawn.min() > 64, "every sprite covers at least a patch's worth of pixels"
    flat = sheets.reshape(5 * len(concepts()), -1)
    assert len({sprite.tobytes() for sprite in flat}) == len(flat), "no drawing serves twice"


def test_unknown_style_lists_the_styles():
    with pytest.raises(ValueError, match=r"unknown art style 'crayon'; the styles are noto, twemoji, openmoji"):
        world.scene((0, 1, 2), styles=["crayon"])


@pytest.fixture
def recorded(monkeypatch):
    """Keeps what `world.draw` makes on its way to a picture: the grounds, the pieces, their places."""
    kept = {"ground_image": [], "place": [], "cut_out": []}

    def keeping(name, original):
        def wrapped(*args, **kwargs):
            made = original(*args, **kwargs)
            kept[name].append(np.array(made))
            return made

        return wrapped

    for name in kept:
        monkeypatch.setattr(world, name, keeping(name, getattr(world, name)))
    return kept


def test_masks_show_who_is_in_front(recorded):
    """Grounds, pieces and places are put together again by another route."""
    hidden = 0
    for k in range(40):
        for made_before in recorded.values():
            made_before.clear()
        made = world.scene((3, 1, k), n_objects=(2, 3))
        alpha = np.zeros((len(made.words), 64, 64))
        for i, (piece, (left, top, side)) in enumerate(zip(recorded["cut_out"], recorded["place"][0], strict=True)):
            alpha[i, top : top + side, left : left + side] = piece[..., 3]
        solid = alpha > 0.5
        front = np.where(solid.any(axis=0), len(solid) - 1 - solid[::-1].argmax(axis=0), -1)
        assert made.masks.dtype == bool
        assert np.array_equal(made.masks, front == np.arange(len(solid))[:, None, None])
        hidden += int((solid.sum(axis=0) > 1).sum())
        bare = ~alpha.any(axis=0)
        ground = recorded["ground_image"][0].clip(0, 255).astype(np.uint8)
        assert np.array_equal(made.image[bare], ground[bare]) and bare.any()
    assert hidden > 100, "objects do stand in front of one another in these scenes"


def test_whoever_is_in_front_covers_the_others(recorded):
    made = world.scene((3, 1, 0), n_objects=(3,))
    for k, (piece, (left, top, side)) in enumerate(zip(recorded["cut_out"], recorded["place"][0], strict=True)):
        opaque = np.zeros((64, 64), dtype=bool)
        opaque[top : top + side, left : left + side] = piece[..., 3] == 1
        colours = np.zeros((64, 64, 3))
        colours[top : top + side, left : left + side] = piece[..., :3].clip(0, 255)
        pure = opaque & made.masks[k]
        for above, (x, y, width) in zip(recorded["cut_out"][k + 1 :], recorded["place"][0][k + 1 :], strict=True):
            pure[y : y + width, x : x + width] &= above[..., 3] == 0
        assert pure.any() and np.abs(made.image[pure] - colours[pure]).max() <= 1


def test_masks_are_disjoint_and_never_empty(scenes):
    for made in scenes:
        assert made.image.shape == (64, 64, 3) and made.image.dtype == np.uint8
        assert made.masks.shape == (len(made.words), 64, 64)
        assert made.masks.sum(axis=0).max() == 1
        assert made.masks.sum(axis=(1, 2)).min() >= 8, "something of every object can be seen"


@pytest.mark.parametrize("n", [1, 2, 3])
def test_places_lie_inside_and_overlap_little(n):
    rng = np.random.default_rng(0)
    low, high = world.SIZES[n]
    for _ in range(200):
        squares = world.place(rng, n)
        assert len(squares) == n
        area = np.zeros((n, 64, 64), dtype=bool)
        for i, (left, top, side) in enumerate(squares):
            assert low <= side < high and min(left, top) >= 0 and max(left, top) + side <= 64
            area[i, top : top + side, left : left + side] = True
        for a, b in itertools.combinations(area, 2):
            assert (a & b).sum() <= min(a.sum(), b.sum()) / 3


def test_what_a_seed_says_is_what_is_drawn():
    made = world.scene((5, 1, 9), styles=["noto"], n_objects=(2,))
    assert made.style == "noto" and len(set(made.words)) == 2 and set(made.words) <= WORDS
    same = world.scene((5, 1, 9), styles=["noto"], n_objects=(2,))
    assert digest(made) == digest(same) and made.ground == same.ground
    others = [world.scene(seed, styles=["noto"], n_objects=(2,)) for seed in ((6, 1, 9), (5, 2, 9), (5, 1, 10))]
    assert digest(made) not in {digest(other) for other in others}


def test_no_two_splits_share_a_scene():
    numbers = list(world.SPLIT_SEEDS.values())
    assert len(set(numbers)) == len(numbers)
    assert not set(numbers) & {7, 8, 97}, "seeds of the linear probe and of the naming score"
    drawn = [digest(world.scene((0, number, k))) for number in (*numbers, 7, 8, 97) for k in range(12)]
    assert len(set(drawn)) == len(drawn)


def test_concepts_and_hands_are_drawn_evenly(scenes):
    assert {len(made.words) for made in scenes} == {1, 2, 3}
    assert {made.style for made in scenes} == set(art.STYLES)
    assert len({word for made in scenes for word in made.words}) > len(WORDS) / 2


def test_line_art_is_seen_on_dark_grounds():
    """Black outlines would vanish on black; they are turned white there."""
    dark = bright = None
    for k in range(60):
        made = world.scene((1, 1, k), styles=["line"], n_objects=(1,))
        inside, outside = made.image[made.masks[0]].mean(), made.image[~made.masks[0]].mean()
        assert abs(inside - outside) > 25, f"object {made.words[0]} on {made.ground}"
        dark, bright = dark or (outside < 80 and inside > outside), bright or (outside > 170 and inside < outside)
    assert dark and bright, "both cases were met"


def test_scenes_are_read_back_as_they_were_drawn(tmp_path):
    folder = world.write_scenes(tmp_path / "world", split="val", n=12, seed=4)
    read = CocoScenes(folder, "val")
    assert read.ids == list(range(12)) and set(read.categories) == WORDS
    for k in read.ids:
        made = world.scene((4, world.SPLIT_SEEDS["val"], k))
        assert np.array_equal(np.asarray(read.image(k)), made.image)
        assert [o.name for o in read.objects(k)] == list(made.words)
        for i, found in enumerate(read.objects(k)):
            assert np.array_equal(found.mask, made.masks[i]) and found.area == made.masks[i].sum()
            y, x = np.nonzero(made.masks[i])
            assert found.box == (x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1)
        info = read.info(k)
        assert info["style"] == made.style and info["ground"] == " ".join(made.ground)
        assert (info["n_objects"], info["width"], info["height"]) == (len(made.words), 64, 64)
        said = read.captions(k)
        assert len(said) == 5
        assert all(word in caption.lower() for word in made.words for caption in said)


def test_the_same_call_writes_the_same_bytes(tmp_path):
    one, two, other = (tmp_path / name for name in ("one", "two", "other"))
    for folder, seed in ((one, 0), (two, 0), (other, 1)):
        world.write_scenes(folder, split="test", n=4, seed=seed, styles=["fluent"], n_objects=[1])
    assert files(one) == files(two)
    assert len(files(one)) == 4 + 2, "pictures, instances and captions, and nothing left over"
    assert all(files(one)[name] != files(other)[name] for name in files(one))
    read = CocoScenes(one, "test")
    assert all(read.info(k)["style"] == "fluent" and len(read.objects(k)) == 1 for k in read.ids)


@pytest.mark.parametrize("where", ["drawing", "writing"])
def test_an_interrupted_split_is_not_there(tmp_path, monkeypatch, where):
    """Stopped after two pictures, or between the two annotation files; the next call makes the whole of it."""
    calls = itertools.count()
    name, last = ("scene", 2) if where == "drawing" else ("_write", 1)
    original = getattr(world, name)

    def stopping(*args, **kwargs):
        if next(calls) == last:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(world, name, stopping)
        with pytest.raises(KeyboardInterrupt):
            world.write_scenes(tmp_path / "a", split="val", n=4)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        CocoScenes(tmp_path / "a", "val")
    world.write_scenes(tmp_path / "a", split="val", n=4)
    world.write_scenes(tmp_path / "b", split="val", n=4)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_finished_split_is_left_alone(tmp_path, monkeypatch):
    world.write_scenes(tmp_path, split="val", n=2)
    before = files(tmp_path)
    monkeypatch.setattr(world, "scene", lambda *a, **k: pytest.fail("drawn again"))
    world.write_scenes(tmp_path, split="val", n=2)
    assert files(tmp_path) == before


def test_unknown_split_is_refused_before_anything_is_written(tmp_path):
    message = r"unknown split 'validation'; the splits are train, val, test"
    with pytest.raises(ValueError, match=message):
        world.write_scenes(tmp_path / "world", split="validation", n=1)
    assert not (tmp_path / "world").exists()
