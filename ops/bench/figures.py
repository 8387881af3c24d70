"""Figures: what was measured, against what, and whether that is enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

__all__ = ["Figure", "as_json", "table"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: the median of ``values`` (one for each round), and what it is held to.

    ``ratio`` is the median of the rounds' ratios to ``floors``, where there is a floor: a round's own floor saw the same
    machine. ``met`` is None for a figure that is shown for what it tells and held to nothing.
    """

    name: str
    unit: str
    values: tuple[float, ...]
    floor: str = ""
    floors: tuple[float, ...] = ()
    target: str = ""
    met: bool | None = None

    @property
    def value(self) -> float:
        return median(self.values)

    @property
    def ratio(self) -> float | None:
        pairs = [value / floor for value, floor in zip(self.values, self.floors, strict=False) if floor]
        return median(pairs) if pairs else None

    @classmethod
    def shown(cls, name: str, unit: str, values: Sequence[float]) -> Figure:
        return cls(name, unit, tuple(values))

    @classmethod
    def at_most(
        cls,
        name: str,
        unit: str,
        values: Sequence[float],
        most: float,
        *,
        floor: str = "",
        floors: Sequence[float] = (),
    ) -> Figure:
        """A figure that is held to ``most``; its floor, if it has one, is shown beside it."""
        return cls(name, unit, tuple(values), floor, tuple(floors), f"<= {most:,g}", median(values) <= most)

    @classmethod
    def at_least(cls, name: str, unit: str, values: Sequence[float], least: float) -> Figure:
        return cls(name, unit, tuple(values), target=f">= {least:,g}", met=median(values) >= least)

    @classmethod
    def against(
        cls,
        name: str,
        unit: str,
        values: Sequence[float],
        floor: str,
        floors: Sequence[float],
        *,
        least: float | None = None,
        most: float | None = None,
    ) -> Figure:
        """A figure that is held to ``least`` or ``most`` times its floor."""
        bare = cls(name, unit, tuple(values), floor, tuple(floors))
        ratio = bare.ratio
        assert ratio is not None, f"{name}: its floor was not measured"
        if least is not None:
            target, met = f">= {least:g} x {floor}", ratio >= least
        else:
            assert most is not None, f"{name}: held to nothing"
            target, met = f"<= {most:g} x {floor}", ratio <= most
        return cls(name, unit, bare.values, floor, bare.floors, target, met)


def as_json(groups: dict[str, list[Figure]]) -> dict[str, Any]:
    """Groups of figures as plain values, every round included."""
    return {
        group: [asdict(figure) | {"value": figure.value, "ratio": figure.ratio} for figure in figures]
        for group, figures in groups.items()
    }


def table(groups: dict[str, list[Figure]]) -> str:
    """Groups of figures as lines of text."""
    rows: list[tuple[str, ...]] = [("figure", "median", "", "spread", "ratio", "target", "")]
    for group, figures in groups.items():
        rows.append((f"{group}:", "", "", "", "", "", ""))
        rows += [_row(figure) for figure in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = {1, 3, 4}
    lines = []
    for row in rows:
        cells = [cell.rjust(width) if at in right else cell.ljust(width)
                 for at, (cell, width) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _row(figure: Figure) -> tuple[str, ...]:
    spread = "" if len(figure.values) < 2 else f"{_number(min(figure.values))}..{_number(max(figure.values))}"
    verdict = "" if figure.met is None else "met" if figure.met else "MISSED"
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    return f"  {figure.name}", _number(figure.value), figure.unit, spread, ratio, figure.target, verdict


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"
