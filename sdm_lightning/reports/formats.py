"""A table as Markdown, CSV or LaTeX."""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

TableFormat: TypeAlias = Literal["md", "csv", "latex"]


@dataclass(frozen=True)
class Grid:
    """Headings and cells, all text; notes stand below the table.

    Attributes:
        name: ``table1``.
        number: As the paper prints it; empty if the table is not in the paper.
        title: What it compares.
        headings: One for each column.
        rows: Cells of each row.
        notes: One paragraph each.
    """

    name: str
    number: str
    title: str
    headings: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


def unbroken(text: str) -> str:
    """Join lines: a name from somebody's file must not end a table or begin a heading."""
    return " ".join(text.split())


def to_markdown(grid: Grid) -> str:
    """Format as Markdown with aligned columns, which also reads well in a terminal."""

    def escaped(text: str) -> str:
        return unbroken(text).replace("|", "\\|").replace("<", "&lt;")

    table = [[escaped(cell) for cell in row] for row in [grid.headings, *grid.rows]]
    widths = [max(3, *(len(row[k]) for row in table)) for k in range(len(grid.headings))]
    number = f"Table {grid.number}: " if grid.number else ""
    lines = [f"**{number}{grid.title}**", ""]
    for index, row in enumerate(table):
        cells = [
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("| " + " | ".join(cells) + " |")
        if index == 0:
            rule = ["-" * w if k == 0 else "-" * (w - 1) + ":" for k, w in enumerate(widths)]
            lines.append("| " + " | ".join(rule) + " |")
    for note in grid.notes:
        lines += ["", unbroken(note).replace("<", "&lt;")]
    return "\n".join(lines)


def to_csv(grid: Grid) -> str:
    """Format as CSV: headings, rows, then each note as a comment line."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([grid.headings, *grid.rows])
    return buffer.getvalue() + "\n".join(f"# {unbroken(note)}" for note in grid.notes)


LATEX = {
    **{character: f"\\{character}" for character in "%&_#{}$"},
    "\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$",
}  # fmt: skip


def to_latex(grid: Grid) -> str:
    """Format as a LaTeX ``booktabs`` table."""

    def escaped(text: str) -> str:
        return "".join(LATEX.get(character, character) for character in unbroken(text))

    def line(row: list[str]) -> str:
        text = " & ".join(re.sub(r"^-(?=\d)", "$-$", escaped(cell)) for cell in row) + r" \\"
        # The command before it would read these as its argument.
        return "{}" + text if text.startswith(("[", "*")) else text

    lines = [
        r"\begin{table}",
        r"\centering",
        r"\begin{tabular}{l" + "r" * (len(grid.headings) - 1) + "}",
    ]
    lines += [r"\toprule", line(grid.headings), r"\midrule", *map(line, grid.rows)]
    number = f" (Table {grid.number} of the SDM paper)" if grid.number else ""
    caption = escaped(" ".join([f"{grid.title}{number}.", *grid.notes]))
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{caption}}}"]
    return "\n".join([*lines, rf"\label{{tab:{grid.name}}}", r"\end{table}"])


FORMATS: dict[TableFormat, Callable[[Grid], str]] = {
    "md": to_markdown,
    "csv": to_csv,
    "latex": to_latex,
}

SUFFIXES: dict[str, TableFormat] = {".csv": "csv", ".tex": "latex"}
"""Names of files whose format is not Markdown."""
