"""Pages of the site whose source lies outside ``docs/``, and the links between all of them.

Links are written for the repository, where an editor or a code host follows them; here each is
rewritten to where its target lies in the site.
"""

import logging
import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

logger = logging.getLogger("mkdocs.hooks")

REPOSITORY = Path(__file__).resolve().parents[1]
ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "LICENSE.txt",
    "CITATION.cff": "CITATION.cff",
}
"""Path in the repository -> path in the site."""

TABLE_TITLE = re.compile(r"\A\*\*(.+)\*\*$", re.MULTILINE)
REMOTE = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc="https?:|<link\b[^>]*\brel="?(?:stylesheet|pre)[^>]*https?:"""
)
WHOLE_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^()\s#:]+)\)")
LINK = re.compile(r"""(?:(?<=\]\()|(?<=src="))([^()\s#:"]+)""")
PICTURE = re.compile(r'<img\b[^>]*\bsrc="([^":]+)"')
INLINE_CODE = re.compile(r"(?<=<code>)[^<]+(?=</code>)")
OPTION = re.compile(r"(?<!\S)--\w")


def site_paths() -> dict[str, str]:
    """Return ``ELSEWHERE`` with the pages and pictures of ``experiments/``."""
    found = [
        path.relative_to(REPOSITORY).as_posix()
        for pattern in ("**/*.md", "results/figures/*", "results/*.jsonl")
        for path in sorted((REPOSITORY / "experiments").glob(pattern))
    ]
    # A README would become the index page of the section that it is listed in.
    return ELSEWHERE | {path: path.replace("README", "overview") for path in found}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that lie outside ``docs/``."""
    for source, target in site_paths().items():
        files.append(File.generated(config, target, abs_src_path=str(REPOSITORY / source)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Rewrite the links of one page from the repository to the site."""
    paths = site_paths()
    here = page.file.src_uri
    if here == "index.md":
        page.meta["hide"] = ["navigation"]
    sources = {target: source for source, target in paths.items()}
    folder = PurePosixPath(sources.get(here, f"docs/{here}")).parent

    def rewritten(match: re.Match[str]) -> str:
        source = normpath((folder / match[1]).as_posix())
        target = paths.get(source)
        if target is None and source.startswith("docs/"):
            target = source.removeprefix("docs/")
        return match[1] if target is None else relpath(target, PurePosixPath(here).parent)

    def without_source_files(match: re.Match[str]) -> str:
        """Keep only the text of a link to a file of the repository that the site does not hold."""
        source = normpath((folder / match[2]).as_posix())
        elsewhere = source not in paths and not source.startswith(("docs/", ".."))
        return match[1] if elsewhere and (REPOSITORY / source).exists() else match[0]

    markdown = WHOLE_LINK.sub(without_source_files, markdown)
    # Tables that `sdm table` wrote begin with their title in bold.
    return LINK.sub(rewritten, TABLE_TITLE.sub(r"# \1", markdown))


def on_page_content(html: str, **_: object) -> str:
    """Mark the dashes of options, between which browsers would break a line."""
    return INLINE_CODE.sub(
        lambda code: OPTION.sub(r'<span class="option">\g<0></span>', code[0]), html
    )


def on_post_build(config: MkDocsConfig) -> None:
    """Warn, an error in strict mode, of pages that load from another host or lack a picture."""
    for page in sorted(Path(config.site_dir).rglob("*.html")):
        text = page.read_text(encoding="utf-8")
        if found := REMOTE.search(text):
            logger.warning("%s loads something from the web: %s", page, found[0])
        for picture in PICTURE.findall(text):
            if not (page.parent / picture).is_file():
                logger.warning("%s shows %s, which is not there", page, picture)
