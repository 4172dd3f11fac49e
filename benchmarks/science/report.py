"""Tables as Markdown for people and as one line of JSON for machines."""

import json
import math


def is_score(value) -> bool:
    return isinstance(value, dict) and "mean" in value


def markdown(rows: list[dict]) -> str:
    """Rows as a table: means, with the standard deviation over draws where there were several."""
    if not rows:
        return "(empty)"
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        lines.append("| " + " | ".join(cell(row.get(column, "")) for column in columns) + " |")
    return "\n".join(lines)


def cell(value) -> str:
    if is_score(value):
        if math.isnan(value["mean"]):
            return "-"
        spread = f" ± {value['std']:.2g}" if value["std"] > 0 else ""
        return f"{value['mean']:.4g}{spread}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def json_line(table: str, rows: list[dict], **about) -> str:
    """The figures of a table in one line."""
    return json.dumps({"table": table, **about, "rows": rounded(rows)})


def rounded(value):
    """Five digits: what lies beyond is noise, and a reader's burden. NaN, which JSON does not know, becomes null."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value
