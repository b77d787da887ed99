"""What the documentation site needs beside `docs/`: pages from elsewhere, and no network.

The pages of the repository link to each other as files, so that they can be read without the site.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

#: Pages of the site that are files of the repository outside `docs/`.
_PAGES = {
    "export.md": "export/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
_FILES = {"scaling.png": "benchmarks/results/scaling.png"}
#: Files that the site does not have: their links become plain text.
_LEFT_OUT = re.compile(
    r"\[([^]]+)\]\((?:\.\./)*(?:benchmarks|plugins|examples|attpc_filter)/[^)]*\)"
)
#: The only addresses that a page may load something from are its own.
_LOADED = re.compile(
    r"<(?:script|img|iframe)[^>]+src=\"?https?://|<link[^>]+stylesheet[^>]+https?://"
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies outside `docs/`."""
    for name, source in (_PAGES | _FILES).items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links to pages of the site."""
    for name, source in (_PAGES | _FILES).items():
        markdown = re.sub(
            rf"\]\((?:\.\./)*{re.escape(source)}(#[^)]*)?\)", rf"]({name}\1)", markdown
        )
    markdown = re.sub(r"\]\((?:\.\./)*README\.md(#[^)]*)?\)", r"](index.md)", markdown)
    markdown = re.sub(r"\]\((?:\.\./)*docs/", "](", markdown)
    return _LEFT_OUT.sub(r"\1", markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuse a page that loads something from the network."""
    if found := _LOADED.search(output):
        raise PluginError(f"{page.file.src_uri}: loads from the network: {found[0]}")
    return output
