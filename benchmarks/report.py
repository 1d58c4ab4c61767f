"""The suite's table: medians of what was measured, ratios, floors, targets, and how cost grows."""

from dataclasses import asdict
from math import log2
from statistics import median
from typing import Any

from inputs import SIZES, halves
from stages import STAGES

Row = dict[str, Any]

WITH_THE_NET = "export + prediction"
STAGE_ORDER = [*STAGES, WITH_THE_NET]


def table(done: Row) -> str:
    """All of it as Markdown."""
    machine, rates, rows = done["machine"], done["rates"], done["summary"]
    imports = min((one["private_mib"] for one in done["measurements"] if "error" not in one), default=0)
    heading = ["stage", "size", "wall s", "CPU s", "peak (private) MiB", "a second", "plain s", "×", "floor s", "asked"]
    of_bytes = f", {rates['int8'] / 1e9:.0f} int8" if "int8" in rates else ""
    lines = [
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']:.0f} GiB, torch {machine['torch']}, "
        f"tokenizers {machine['tokenizers']}. Matrix products: {rates['float32'] / 1e9:.0f} GFLOP/s float32, "
        f"{rates['bfloat16'] / 1e9:.0f} bfloat16{of_bytes}; memory: {rates['read'] / 1e9:.1f} GB/s read. Of every peak "
        f"{imports:.0f} MiB are imports; ~ was measured on a part and scaled.",
        "",
        *_markdown([*heading, "same result"], [_cells(row) for row in rows if row["size"] in SIZES]),
    ]
    if grown := growth(rows):
        lines += ["", "Exponent of the time, and MiB of private memory that the second half costs:", "", *grown]
    return "\n".join(lines)


def summarise(measurements: list[Row], rates: dict[str, float]) -> list[Row]:
    """One row for each stage and size: medians, ratios, targets; `failed` says which sides failed and how."""
    rows: list[Row] = []
    for stage in STAGES:
        for size in dict.fromkeys(one["size"] for one in measurements if one["stage"] == stage):
            runs = [one for one in measurements if (one["stage"], one["size"]) == (stage, size)]
            rows.append(_summary(stage, size, runs, rates))
    rows += _exports_with_the_net(rows)
    order = list(SIZES)
    return sorted(rows, key=lambda row: (STAGE_ORDER.index(row["stage"]), order.index(row["size"].split("-")[0])))


def _summary(stage: str, size: str, runs: list[Row], rates: dict[str, float]) -> Row:
    whole = [one for one in runs if "error" not in one]
    sides = {side: [one for one in whole if one["side"] == side] for side in STAGES[stage].sides}
    failed = sorted({f"{one['side']}: {one['error']}" for one in runs if "error" in one})
    row: Row = {"stage": stage, "size": size, "unit": STAGES[stage].unit, "failed": failed, "asked": []}
    if not sides["product"]:
        return row

    def middle(side: str, key: str) -> float:
        return median(one[key] for one in sides[side])

    first = sides["product"][0]
    row |= {key: middle("product", key) for key in ("seconds", "cpu_seconds", "peak_mib", "private_mib")}
    row |= {"items": first["items"], "estimated": first["estimated"], "facts": first["facts"]}
    operations = first["facts"].get("operations", first["operations"])
    products = operations / rates["float32"] + first["searched"] / max(rates.get("int8", 0), rates["float32"])
    row["floor"] = max(products, first["traffic"] / rates["read"])
    if sides.get("floor"):
        row["floor"] = max(row["floor"], middle("floor", "seconds"))
    if row["floor"]:
        row["over_floor"] = row["seconds"] / row["floor"]
    if sides.get("plain"):
        row |= {"plain": middle("plain", "seconds"), "plain_estimated": sides["plain"][0]["estimated"]}
        row["ratio"] = row["plain"] / row["seconds"]
    row["same"] = next((one["same"] for one in runs if one.get("same")), None)
    row["asked"] = _asked(stage, row)
    return row


def _asked(stage: str, row: Row) -> list[Row]:
    """The stage's targets for this size, and whether they are met."""
    values = row | row.get("facts", {})
    targets = [one for one in STAGES[stage].targets if one.size in (None, row["size"]) and one.measure in values]
    return [asdict(one) | {"value": values[one.measure], "met": one.met(values[one.measure])} for one in targets]


def _exports_with_the_net(rows: list[Row]) -> list[Row]:
    """What `export --method hyperofa` costs: the export and the prediction together."""
    found = {(row["stage"], row["size"]): row for row in rows if "seconds" in row}
    sums = []
    for size in SIZES:
        parts = [found[stage, size] for stage in ("export", "prediction") if (stage, size) in found]
        if len(parts) < 2:
            continue
        row = parts[0] | {"stage": WITH_THE_NET, "estimated": True, "same": None}
        row |= {key: sum(part[key] for part in parts) for key in ("seconds", "cpu_seconds", "floor")}
        row |= {key: max(part[key] for part in parts) for key in ("peak_mib", "private_mib")}
        row["over_floor"] = row["seconds"] / row["floor"]
        row["asked"] = _asked("export", row)
        sums.append({key: value for key, value in row.items() if key not in ("plain", "ratio")})
    return sums


def growth(rows: list[Row]) -> list[str]:
    """For each stage, how time and memory follow words, tokens and widths, from a size and its halves."""
    found = {(row["stage"], row["size"]): row for row in rows if "seconds" in row}
    lines = []
    for (stage, size), whole in found.items():
        if size not in SIZES:
            continue
        cells = []
        for half in halves(SIZES[size]).values():
            part = found.get((stage, half.name))
            if part is not None:
                more = whole["private_mib"] - part["private_mib"]
                cells.append(f"{log2(whole['seconds'] / part['seconds']):.1f} ({more:+.0f})")
        if cells:
            lines.append([stage, size, *cells])
    return _markdown(["stage", "size", *halves(SIZES["tiny"])], lines) if lines else []


def _cells(row: Row) -> list[str]:
    failed = "; ".join(row["failed"])
    if "seconds" not in row:
        return [row["stage"], row["size"], *[""] * 8, failed]
    about = "~" * row["estimated"]
    same = row["same"]
    return [
        row["stage"],
        row["size"],
        about + _number(row["seconds"]),
        about + _number(row["cpu_seconds"]),
        f"{row['peak_mib']:.0f} ({row['private_mib']:.0f})",
        f"{_number(row['items'] / row['seconds'])} {row['unit']}",
        f"{'~' * row['plain_estimated']}{_number(row['plain'])}" if "plain" in row else "–",
        f"{row['ratio']:.1f}" if "ratio" in row else "–",
        f"{_number(row['floor'])} ({row['over_floor']:.1f} ×)" if row["floor"] else "–",
        "; ".join(_wish(one) for one in row["asked"]),
        failed or ("" if same is None else f"{_mark(same['equal'])} {same['words']}"),
    ]


def _wish(one: Row) -> str:
    words = {
        "ratio": "≥ {:g} ×",
        "over_floor": "≤ {:g} × floor",
        "seconds": "≤ {:g} s",
        "peak_mib": "≤ {:g} MiB",
        "checkpoint_ratio": "≤ {:g} × net",
    }
    found = "" if one["met"] else f" ({one['value']:.3g})"
    return f"{words[one['measure']].format(one['limit'])} {_mark(one['met'])}{found}"


def _mark(good: bool) -> str:
    return "✓" if good else "✗"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _markdown(heading: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heading, ["---"] * len(heading), *rows)]
