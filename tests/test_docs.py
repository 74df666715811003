"""The pages of the site: their code runs, their links lead somewhere, the site lists them all."""

import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md"))
MADE = {"index.md", "changelog.md", "examples.md"}  # by docs/_site/hooks.py


def text_of(page):
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


def code_of(page):
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text_of(page), re.M | re.S))


def test_quickstart_trains():
    names = {}
    exec(compile(code_of("quickstart.md"), "docs/quickstart.md", "exec"), names)
    assert names["last"] < 0.3 * names["first"]


def test_the_recording_of_the_page_can_be_read():
    from mekax.experiments.view import sources
    from mekax.experiments.view.quantities import draw

    names = {}
    exec(compile(code_of("diagnostics.md"), "docs/diagnostics.md", "exec"), names)
    titles = [drawn.plot.title for drawn in draw(sources.load([names["folder"]]))]
    assert "Step against the Newton step" in titles
    assert "Gradient norm" in titles


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text_of(page)):
        if not target.startswith("https://"):
            assert target in MADE or (ROOT / "docs" / page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_files_that_are_named_exist(page):
    named = re.findall(r"`((?:curvature|optimizers|experiments|tests)/[\w./]+)`", text_of(page))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_site_lists_every_page_that_there_is():
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"- .*: (\S+\.md)$", config, re.M)
    assert sorted(listed) == sorted({*map(str, PAGES), *MADE})


def test_every_choice_in_the_table_exists():
    from mekax import optimizers

    page = text_of("quickstart.md").partition("## What the defaults choose")[2]
    known = {
        parameter
        for name in ("adameka", "meka", "warm_start", "average_iterates", "eval_params")
        for parameter in inspect.signature(getattr(optimizers, name)).parameters
    }
    for name in re.findall(r"`(\w+)=", page):
        assert name in known, name
    for name in re.findall(r"`(\w+_trust_region)\(", page):
        assert hasattr(optimizers, name), name


def test_every_metric_in_the_pages_exists():
    import jax.numpy as jnp
    from mekax.optimizers import meka, metrics, warm_start

    tx = warm_start(0.1, 1, meka())
    known = metrics(tx.init(jnp.ones(2)))
    for page in (*PAGES, "../README.md"):
        for name in re.findall(r'metrics\(state\)\["(\w+)"\]', text_of(page)):
            assert name in known, (page, name)
    _, _, table = text_of("diagnostics.md").partition("| metric | what it tells |\n")
    names = re.findall(r"^\| `(\w+)` \|", table, re.M)
    assert len(names) == len(re.findall(r"^\| `", table, re.M)) > 8
    assert set(names) <= set(known)


def test_the_citation_has_the_version():
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
