"""Part I's long computations: each goes on where it was cut off, and with smaller batches where the memory ends."""

from dataclasses import dataclass, field
from functools import wraps

import numpy as np
import pandas as pd
import paper_replicas
import pytest
import replicas
import torch

from mmn_utils import activity, agreement, causes, depth, profiles, survey, truth
from mmn_utils.data import CocoScenes
from mmn_utils.models import Captioner
from mmn_utils.models.clip import Clip

N = 9
UNITS = torch.arange(2 * N).reshape(N, 2) % 7


@dataclass
class World:
    """A captioner, pictures, and one word asked about each."""

    captioner: Captioner
    scenes: CocoScenes
    clip: Clip
    settings: profiles.Profile
    ids: list = field(default_factory=list)

    def __post_init__(self):
        self.ids = self.scenes.ids[:N]
        rows = [{"image": i, "noun": "dog", "token": 5 + i % 3, "before": [7, 8][: i % 2]} for i in self.ids]
        self.targets = pd.DataFrame(rows)

    def plan(self, sweep):
        return causes.plan(self.captioner, self.scenes, self.targets, sizes=(0, 2, 5), sweep=sweep)

    def scores(self, sweep):
        texts = [[["dog", "cat"], f"picture {i}"] for i in self.ids]
        return agreement.scores(self.scenes, self.ids, texts, self.settings, self.clip, sweep=sweep)

    def effects(self, sweep):
        given = {"units": torch.arange(3), "n_steps": 2, "generator": torch.Generator(), "sweep": sweep}
        return truth.effects(self.captioner, self.scenes, self.targets, **given)


SWEEPS = {
    "captions": lambda w, sweep: survey.captions(w.captioner, w.scenes, w.ids, sweep=sweep),
    "attributions": lambda w, sweep: survey.attributions(w.captioner, w.scenes, w.ids, w.targets, sweep=sweep)[0],
    "means": lambda w, sweep: activity.means(w.captioner, w.scenes, w.ids, sweep=sweep),
    "maps": lambda w, sweep: activity.maps(w.captioner, w.scenes, w.ids, UNITS, sweep=sweep),
    "thresholds": lambda w, sweep: activity.thresholds(w.captioner, w.scenes, w.ids, sweep=sweep, layers_at_once=1),
    "groups": lambda w, sweep: activity.group_thresholds(w.captioner, w.scenes, w.ids, UNITS, sweep=sweep),
    "rankings": lambda w, sweep: w.plan(sweep).top,
    "probabilities": lambda w, sweep: causes.probabilities(w.captioner, w.scenes, w.plan(sweep), sweep=sweep),
    "ablated captions": lambda w, sweep: causes.captions(w.captioner, w.scenes, w.plan(sweep), sweep=sweep),
    "exact effects": lambda w, sweep: w.effects(sweep).exact,
    "the logit lens": lambda w, sweep: depth.survey(w.captioner, w.scenes, w.ids, sweep=sweep),
    "scores": lambda w, sweep: w.scores(sweep),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    file = replicas.save_paper_models(folder)
    paper_replicas.save_coco(folder / "coco", n=2 * N)
    paper_replicas.save_clip(folder / "clip")
    settings = profiles.read(replicas.save_profile(file, models__clip={"clip": {"source": "./clip"}}))
    scenes = CocoScenes(folder / "coco", "val2017")
    return World(Captioner.from_profile(settings), scenes, Clip.from_profile(settings), settings)


class Killed(BaseException):
    """As if the process had ended."""


class Cut:
    """Sweeps in shards of two; all computations after the first `most` are killed as they begin."""

    def __init__(self, sweep, most=1000):
        self.sweep, self.most, self.asked = sweep, most, []

    def __call__(self, name, compute, items, *, size=32, **key):
        @wraps(compute)
        def counted(some):
            if len(self.asked) == self.most:
                raise Killed
            self.asked.append((name, *some))
            return compute(some)

        return self.sweep(name, counted, items, size=min(size, 2), **key)


def same(a, b):
    return a.equals(b) if isinstance(a, pd.DataFrame) else torch.equal(a, b)


@pytest.mark.parametrize("kind", SWEEPS)
def test_it_goes_on_where_it_was_killed(kind, world, sweep, monkeypatch, tmp_path):
    compute, whole = SWEEPS[kind], Cut(sweep)
    wanted = compute(world, whole)
    monkeypatch.setenv("MMN_ROOT", str(tmp_path / "another"))
    first, rest, again = Cut(sweep, most=len(whole.asked) // 2), Cut(sweep), Cut(sweep)
    with pytest.raises(Killed):
        compute(world, first)
    assert same(compute(world, rest), wanted), "the same as without a break"
    assert first.asked and rest.asked and first.asked + rest.asked == whole.asked, "nothing twice, nothing left out"
    assert same(compute(world, again), wanted) and again.asked == []


@pytest.fixture
def small_memory(world):
    """No more than three rows at once go through the encoder, the language model or BERT."""

    def refuse(_module, args, given):
        rows = next(len(x) for x in (*args, *given.values()) if isinstance(x, torch.Tensor) and x.ndim > 1)
        if rows > 3:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {rows} rows")

    parts = world.captioner.language_model, world.captioner.encoder.model
    handles = [part.register_forward_pre_hook(refuse, with_kwargs=True) for part in parts]
    yield
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("kind", ["captions", "attributions", "means", "maps", "rankings", "the logit lens"])
def test_it_takes_less_at_once_where_the_memory_ends(kind, world, sweep, small_memory, capsys, monkeypatch, tmp_path):
    found = SWEEPS[kind](world, sweep)
    assert "items are too much for the memory: now" in capsys.readouterr().err
    monkeypatch.setenv("MMN_ROOT", str(tmp_path / "another"))
    wanted = SWEEPS[kind](world, Cut(sweep))
    if isinstance(found, pd.DataFrame):
        pd.testing.assert_frame_equal(found, wanted, rtol=1e-3, atol=1e-5)
    else:
        assert np.allclose(found, wanted, rtol=1e-3, atol=1e-5)
