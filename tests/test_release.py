"""The project's files for a release agree with each other; `make release-check` builds one and tries it."""

from __future__ import annotations

import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
LINKS = runpy.run_path(str(ROOT / ".ci/absolute_links.py"))
YAML = sorted([*ROOT.glob(".github/**/*.yml"), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"])


def test_the_fallbacks_are_of_one_release():
    build = re.search(r'^fallback_version = "(.+)\.dev0"$', PYPROJECT, re.MULTILINE)[1]
    checkout = re.search(r'__version__ = "(.+)"', (ROOT / "src/winspect/_version.py").read_text())[1]
    assert build == checkout
    assert f"## {build}" in (ROOT / "CHANGELOG.md").read_text()


def test_what_the_build_writes_is_ignored_and_removed_again():
    written = re.search(r'^version_file = "(.+)"$', PYPROJECT, re.MULTILINE)[1]
    assert written in (ROOT / ".gitignore").read_text().splitlines()
    assert written in (ROOT / ".ci/run").read_text()


def test_where_the_project_is_stands_in_one_place():
    (address,) = set(re.findall(r'^Repository = "(.+)"$', PYPROJECT, re.MULTILINE))
    files = [*YAML, *ROOT.glob("*.md"), *ROOT.glob(".github/*.md"), *ROOT.glob("src/**/*.py"), ROOT / "Makefile"]
    assert [file for file in files if address in file.read_text()] == []
    urls = re.search(r"\[project\.urls\]\n(.*?)\n\n", PYPROJECT, re.DOTALL)[1]
    assert all(line.partition('"')[2].startswith(address) for line in urls.splitlines())


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_yaml_files_can_be_read(path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_a_release_is_published_by_a_trusted_publisher_with_as_few_rights_as_can_be():
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    jobs = workflow["jobs"]
    assert workflow["permissions"] == {}
    assert jobs["publish"]["permissions"] == {"id-token": "write"} and jobs["publish"]["needs"] == "build"
    steps = [step.get("uses", "") for step in jobs["build"]["steps"]]
    assert any(step.startswith("actions/attest-build-provenance@") for step in steps)
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text()
    targets = next(step["run"] for step in jobs["build"]["steps"] if "make" in step.get("run", "")).split()[1:]
    makefile = (ROOT / "Makefile").read_text()
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_the_citation_is_of_this_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert f'license = "{citation["license"]}"' in PYPROJECT
    assert citation["references"][0]["url"].endswith("2303.14814")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib")
def test_the_extra_all_names_extras_that_there_are():
    import tomllib

    extras = tomllib.loads(PYPROJECT)["project"]["optional-dependencies"]
    named = set(re.search(r"\[(.*)\]", extras["all"][0])[1].split(","))
    assert {"full", "client", "completion"} <= named <= set(extras)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](b.md)", "[a](R/blob/v1/b.md)"),
        ("![a](b/c.jpg)", "![a](R/raw/v1/b/c.jpg)"),
        ("[![a](b.jpg)](c.md)", "[![a](R/raw/v1/b.jpg)](R/blob/v1/c.md)"),
        ('<img alt="x" src="b.jpg">', '<img alt="x" src="R/raw/v1/b.jpg">'),
        ("[a](https://x) [b](#c)", "[a](https://x) [b](#c)"),
    ],
)
def test_links_become_absolute(text, expected):
    assert LINKS["absolute"](text, "R", "v1") == expected


def test_the_readme_for_an_index_has_no_relative_link(tmp_path):
    readme = Path(shutil.copy(ROOT / "README.md", tmp_path))
    assert LINKS["main"](str(ROOT / "pyproject.toml"), str(readme), "v1") == 0
    text = readme.read_text()
    assert re.findall(r"\]\((?!https?:|#)", text) + re.findall(r'src="(?!https?:)', text) == []
    assert "/raw/v1/docs/" in text
    (tmp_path / "empty.toml").touch()
    assert LINKS["main"](str(tmp_path / "empty.toml"), str(readme), "v1") == 2
