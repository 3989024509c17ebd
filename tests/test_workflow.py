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
        "audit": {"contents": "read"},
        "paper": {"contents": "read"},
        "deploy": {"pages": "write", "id-token": "write"},
    }
    assert "pull_request_target" not in TEXT and "secrets." not in TEXT


def test_nothing_that_others_write_reaches_a_shell():
    """Titles, branch names and inputs are `${{ github.event... }}`: none stands in a command."""
    commands = [step.get("run", "") for job in JOBS.values() for step in job["steps"]]
    assert commands and not [command for command in commands if "${{" in command]


def test_no_job_keeps_the_credentials_of_its_checkout():
    checkouts = [s for job in JOBS.values() for s in job["steps"] if s.get("uses", "").startswith("actions/checkout@")]
    assert len(checkouts) == 3 and all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_dependencies_are_audited_for_every_push_and_weekly():
    (command,) = (step["run"] for step in JOBS["audit"]["steps"] if "run" in step)
    strictly = "--strict --no-deps --disable-pip --requirement constraints.txt"
    assert re.fullmatch(rf"pipx run pip-audit==[\d.]+ {re.escape(strictly)}", command)
    assert JOBS["audit"]["if"] == "github.event_name != 'workflow_dispatch'"


def test_pull_requests_never_reach_the_gpu_runner():
    assert JOBS["paper"]["runs-on"] == ["self-hosted", "gpu"]
    assert "pull_request" not in JOBS["paper"]["if"] and "push" not in JOBS["paper"]["if"]
