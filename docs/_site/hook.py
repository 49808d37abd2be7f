"""What MkDocs calls: adds pages that are made from the code, and fills in the navigation."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(ROOT))

import catalogue  # noqa: E402  # in this folder, which is on the path from here on
import leaderboard  # noqa: E402
import pictures  # noqa: E402

SUMMARY = (
    "Rows: original images, the same images with the trigger, and the difference, amplified and centred on grey; "
    "a small trigger is enlarged in a fourth row."
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the changelog from the top of the repository."""
    images = pictures.embedded_images()
    results = Path(config.docs_dir, "results")
    for kind in catalogue.KINDS:
        add(files, config, f"{kind.folder}/index.md", catalogue.overview(kind))
        for one in catalogue.ordered(kind):
            shown = []
            if kind.folder == "attacks" and (png := pictures.trigger(one, images)) is not None:
                add(files, config, f"attacks/{one.__name__}.png", png)
                shown = [(SUMMARY, f"{one.__name__}.png")]
            add(files, config, f"{kind.folder}/{one.__name__}.md", catalogue.page(kind, one, results, shown))
    ranked, plots = leaderboard.page(results)
    add(files, config, "results/leaderboard.md", ranked)
    for name, svg in plots.items():
        add(files, config, f"results/{name}", svg)
    add(files, config, "changelog.md", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    # Without an address, as `mkdocs serve` has none: pages of the repository are not on this site.
    config.nav = expanded(config.nav, files)
    return files


def add(files: Files, config: MkDocsConfig, path: str, content: str | bytes) -> None:
    """Add a generated file."""
    files.append(File.generated(config, path, content=content))


def expanded(nav: Any, files: Files) -> Any:
    """A navigation in which a folder stands for those of its pages that are not listed anywhere."""
    pages = [file.src_uri for file in files.documentation_pages()]
    listed = set(re.findall(r"[\w/.-]+\.md", str(nav)))

    def unlisted(folder: str) -> list[str]:
        found = [page for page in pages if page.startswith(folder) and page not in listed]
        return sorted(found, key=lambda page: (not page.endswith("index.md"), page.lower()))

    def walk(part: Any) -> Any:
        if isinstance(part, dict):
            return {title: walk(inner) for title, inner in part.items()}
        if isinstance(part, list):
            return [one for inner in part for one in (unlisted(inner) if _folder(inner) else [walk(inner)])]
        return part

    return walk(nav)


def _folder(part: Any) -> bool:
    return isinstance(part, str) and part.endswith("/")
