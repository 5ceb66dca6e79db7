"""The tables of docs/recipes.md, from the results of the ablation."""

import json
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
_TITLES = {
    "expr": "Expressions, macro F1",
    "va": "Valence and arousal, mean CCC",
    "au": "Action units, mean F1",
    "mtl": "Multi-task, P_MTL",
}


def write_tables(results: Path) -> None:
    """Replace the text between the markers of every section with its tables, from the file of results."""
    tasks = json.loads(results.read_text())["tasks"]
    text = PAGE.read_text()
    for section in ("heads", "fits", "temporal", "decisions", "blends", "calibration"):
        render = {"calibration": _calibration, "decisions": _decisions, "blends": _decisions}.get(section, _heads)
        begin, end = f"<!-- ablation: {section} -->", f"<!-- end of ablation: {section} -->"
        before, rest = text.split(begin)
        text = "\n".join([before + begin, "", *render(tasks, section), "", end]) + rest.split(end)[1]
    PAGE.write_text(text)


def _heads(tasks: dict[str, Any], section: str) -> list[str]:
    references = {"temporal": "the second row", "fits": "the first row"}
    lines = []
    for task, found in tasks.items():
        if not (rows := [row for row in found["rows"] if row["section"] == section]):
            continue
        reference = "`default`" if task == "mtl" else references.get(section, "`default`")
        lines += [
            *_title(task, found),
            f"| head | held-out, interval | seeds | difference from {reference}, interval | share | fit, s | "
            "parameters | simulations |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            seeds = f"{min(row['seeds']):.3f} to {max(row['seeds']):.3f}"
            lines.append(
                f"| {row['name']} | {_score(row)} | {seeds} | {_difference(row)} | {row['share']:.0%} | "
                f"{row['seconds']:.1f} ({_maker(row)}) | {row['parameters']:,} | {len(row['simulations'])} |"
            )
        lines.append("")
    return lines[:-1]


def _decisions(tasks: dict[str, Any], section: str) -> list[str]:
    what = "decisions" if section == "decisions" else "heads"
    lines = []
    for task, found in tasks.items():
        if not (rows := [row for row in found["rows"] if row["section"] == section]):
            continue
        lines += [
            *_title(task, found),
            f"| {what} | held-out, interval | difference from `default`, interval | simulations 0, 1, ... |",
            "|---|---|---|---|",
        ]
        for row in rows:
            each = ", ".join(f"{score:.3f}" for score in row["simulations"])
            lines.append(f"| {row['name']} | {_score(row)} | {_difference(row)} | {each} |")
        lines.append("")
    return lines[:-1]


def _calibration(tasks: dict[str, Any], section: str) -> list[str]:
    shares = ("1", "0.5", "0.2")
    lines = [
        "| task | error before | after | accuracy of all rows | of the surest half | of the surest fifth | sim. |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, found in tasks.items():
        for row in found["rows"]:
            if row["section"] == section:
                before, after = row["errors"]
                accuracy = " | ".join(f"{row['coverage'][share]:.1%}" for share in shares)
                lines.append(f"| {task} | {before:.3f} | {after:.3f} | {accuracy} | {len(row['simulations'])} |")
    return lines


def _title(task: str, found: dict[str, Any]) -> list[str]:
    best = ", ".join(f"{score:.3f}" for score in found["attainable"].values())
    return [f"{_TITLES[task]}; best attainable in simulations 0, 1, ...: {best}.", ""]


def _maker(row: dict[str, Any]) -> str:
    """Return the maker of the processor that fitted the heads of a row."""
    return str(row["processor"]).split()[0].removesuffix("(R)")


def _score(row: dict[str, Any]) -> str:
    return f"{row['score']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def _difference(row: dict[str, Any]) -> str:
    if row["difference_low"] == row["difference_high"] == 0:
        return ""
    return f"{row['difference']:+.3f} ({row['difference_low']:+.3f} to {row['difference_high']:+.3f})"
