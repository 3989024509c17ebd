"""The GitHub workflow: pinned, with least permissions, and no strangers on one's own runner."""

import re
from pathlib import Path

import yaml

TEXT = (Path(__file__).parents[1] / ".github/workflows/book.yml").read_text()
JOBS = yaml.safe_load(TEXT)["jobs"]


def test_actions_are_pinned_to_full_hashes_with_their_version_beside():
    uses = re.findall(r"uses: (.*)", TEXT)
    assert uses
    assert [line for line in uses if not re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


def test_permissions_are_least():
    assert yaml.safe_load(TEXT)["permissions"] == {}
    granted = {name: job["permissions"] for name, job in JOBS.items()}
    assert granted == {
        "miniature": {"contents": "read"},
        "paper": {"contents": "read"},
        "deploy": {"pages": "write", "id-token": "write"},
    }
    assert "pull_request_target" not in TEXT and "secrets." not in TEXT


def test_pull_requests_never_reach_the_gpu_runner():
    assert JOBS["paper"]["runs-on"] == ["self-hosted", "gpu"]
    assert "pull_request" not in JOBS["paper"]["if"] and "push" not in JOBS["paper"]["if"]
