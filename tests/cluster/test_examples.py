"""The example files for clusters are YAML that says what this release understands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from winspect._version import __version__
from winspect.cli.main import build_parser

ROOT = Path(__file__).parents[2]
RAY = ROOT / "examples" / "ray"
PROJECT = (ROOT / "pyproject.toml").read_text()
JOB = yaml.safe_load((RAY / "kuberay-job.yaml").read_text())
CLUSTER = yaml.safe_load((RAY / "cluster.yaml").read_text())
BASE = re.search(r"^FROM rayproject/ray:([0-9.]+)-", (RAY / "Containerfile").read_text(), re.MULTILINE)


def commands() -> list[str]:
    """The winspect commands of the examples, in entrypoints and comments."""
    comments = re.findall(r"^#\s+(winspect batch .*)$", (RAY / "cluster.yaml").read_text(), re.MULTILINE)
    return [JOB["spec"]["entrypoint"], *comments]


@pytest.mark.parametrize("command", commands())
def test_commands_are_understood(command):
    program, *arguments = shlex.split(command)
    args = build_parser().parse_args(arguments)
    assert (program, args.verb) == ("winspect", "batch")
    assert args.resume, "an example that cannot be run twice"


def test_there_are_commands():
    assert len(commands()) == 2


def test_one_release_of_ray_which_the_extra_allows():
    assert BASE is not None
    assert JOB["spec"]["rayClusterSpec"]["rayVersion"] == BASE[1]
    low, high = re.search(r"ray\[[a-z,]+\]>=([0-9.]+)(?:,<([0-9.]+))?", PROJECT).groups()

    def number(release: str) -> tuple[int, ...]:
        return tuple(map(int, release.split(".")))

    assert number(low) <= number(BASE[1]) and (high is None or number(BASE[1]) < number(high))


def test_the_image_is_this_release():
    groups = [JOB["spec"]["rayClusterSpec"]["headGroupSpec"], *JOB["spec"]["rayClusterSpec"]["workerGroupSpecs"]]
    images = {container["image"] for group in groups for container in group["template"]["spec"]["containers"]}
    assert images == {CLUSTER["docker"]["image"]} == {f"winspect-ray:{__version__.partition('.dev')[0]}"}


def test_the_head_scores_nothing():
    assert CLUSTER["available_node_types"][CLUSTER["head_node_type"]]["resources"] == {"CPU": 0}
    assert JOB["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
