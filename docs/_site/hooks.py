"""Pages and tables made from files of the repository, and links that lead to them."""

import re
import sys
import tempfile
from pathlib import Path

from mekax.experiments.registry import PROBLEMS
from mekax.experiments.reproductions import REPRODUCTIONS
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PACKAGES = ("curvature", "experiments", "optimizers")
PLACE = tempfile.TemporaryDirectory()  # of links to them, as long as the program runs
# Path in the repository, as pages in docs/ link to it ↦ page of the site.
MOVED = {
    "../README.md": "index.md",
    "../CHANGELOG.md": "changelog.md",
    "../examples": "examples.md",
}
TABLES = {"problems": PROBLEMS, "reproductions": REPRODUCTIONS}


def on_startup(**_) -> None:
    """Put the packages where Griffe looks: it does not follow the folders of setuptools."""
    folder = Path(PLACE.name) / "mekax"
    folder.mkdir()
    (folder / "__init__.py").touch()
    for package in PACKAGES:
        (folder / package).symlink_to(ROOT / package)
    sys.path.insert(0, PLACE.name)


def on_files(files: Files, config) -> Files:
    """Add the README, the changelog and the examples."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {
        "index.md": readme.replace("](docs/", "](").replace("](examples/", "](../examples/"),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "examples.md": _examples(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_) -> str:
    """Turn links out of docs/ into links between pages, and fill in the tables."""
    for name, entries in TABLES.items():
        rows = "".join(f"| `{key}` | {entry.description} |\n" for key, entry in entries.items())
        table = f"| name | what it is |\n|---|---|\n{rows}"
        markdown = markdown.replace(f"<!-- table of {name} -->", table)
    markdown = re.sub(r"\]\(\.\./examples/(\w+)\.py\)", r"](examples.md#\1py)", markdown)
    for path, page in MOVED.items():
        markdown = re.sub(rf"\]\({re.escape(path)}(#[^)]*)?\)", rf"]({page}\1)", markdown)
    return markdown


def _examples() -> str:
    parts = ["# Complete loops", "Each file runs as it is; the tests run it too."]
    for file in sorted((ROOT / "examples").glob("*.py")):
        parts += [f"## {file.name}", f"```python\n{file.read_text(encoding='utf-8')}```"]
    return "\n\n".join(parts)
