"""Writes the tables and the plot of a GPU day: python experiments/gpu_day/report.py FOLDER

Reads FOLDER/results.jsonl and writes FOLDER/README.md and FOLDER/training.png. If a slice ran more than once, its last
final result counts. A figure is a median over turns of about a second, with the smallest and the largest in brackets.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from run import FINAL, read_results


def latest(results: Iterable[dict]) -> list[dict]:
    """Returns one result per slice and device, in the order in which they were first tried."""
    chosen: dict[tuple[str, str], dict] = {}
    for result in results:
        key = result["device"], result["slice"]
        if key not in chosen or result["status"] in FINAL or chosen[key]["status"] not in FINAL:
            chosen[key] = result
    return list(chosen.values())


def rate(row: dict, name: str, unit: float, digits: int = 0) -> str:
    middle, least, most = (row[key] / unit for key in (name, f"{name}_least", f"{name}_most"))
    return f"{middle:,.{digits}f} ({least:,.{digits}f} to {most:,.{digits}f})"


def share(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1%}"


def gib(value: float | None) -> str:
    return "n/a" if value is None else f"{value / 2**30:.1f}"


# --- One line per row, part by part ----------------------------------------------------------------------------------


def checks(row: dict) -> list[str]:
    return [row["test"], row["outcome"], f"{row['seconds']:.1f}", *row.get("reason", [""])[:1]]


def ceilings(row: dict) -> list[str]:
    if row["what"] == "copy":
        return ["copy", gib(row["size"]) + " GiB", rate(row, "bytes_per_second", 1e9) + " GB/s", ""]
    return [f"product, {row['dtype']}", f"{row['size']}³", tera(row), share(row["of_peak"])]


def tera(row: dict, name: str = "flops_per_second") -> str:
    return rate(row, name, 1e12) + " TFLOP/s"


def training(row: dict) -> list[str]:
    fields = ("rows", "layers", "remat", "chunk", "xla_flags")
    setting = ", ".join(f"{name} {row[name]}" for name in fields if name in row)
    flops, mfu = row["flops_per_second"], row["mfu"]
    return [
        f"{row['config']} @ {row['length']}",
        row["side"],
        setting,
        rate(row, "tokens_per_second", 1),
        f"{flops['causal'] / 1e12:.0f} · {flops['full'] / 1e12:.0f}",
        f"{share(mfu['causal'])} · {share(mfu['full'])}",
        gib(row["peak_bytes"]),
        f"{row['compile_seconds']:.0f}",
    ]


def attention(row: dict) -> list[str]:
    shape = " · ".join(map(str, row["shape"]))
    return [shape, row["kind"], row["backend"], tera(row, "forward_flops_per_second"), tera(row)]


def decoding(row: dict) -> list[str]:
    speed = rate(row, "tokens_per_second", 1)
    return [row["config"], row["weights"], str(row["batch"]), speed, f"{row['read'] / 1e9:,.0f} GB/s"]


def fp8(row: dict) -> list[str]:
    return [" · ".join(map(str, row["shape"])), row["dtype"], tera(row), f"{row['error_norm']:.2%}"]


def shakespeare(row: dict) -> list[str]:
    loss = "n/a" if row["best_validation_loss"] is None else f"{row['best_validation_loss']:.4f}"
    speed = "n/a" if row["tokens_per_second"] is None else f"{row['tokens_per_second']:,.0f}"
    return [str(row["steps"]), loss, str(row["best_step"]), speed, f"{row['seconds']:.0f}"]


#            heading, columns, a row's cells
PARTS: dict[str, tuple[str, str, Callable[[dict], list[str]]]] = {
    "checks": ("Tests that need a GPU", "test | outcome | seconds | reason", checks),
    "ceilings": ("Ceilings", "what | size | rate | of the datasheet's peak", ceilings),
    "training": ("Training", "shape | side | setting | tokens per second | TFLOP/s, causal · full attention counted "
                 "| MFU, causal · full | peak GiB | compiled in s", training),
    "attention": ("Attention", "rows · length · heads · key/value heads · head width | sequences | backend "
                  "| forward | with the gradient", attention),
    "decoding": ("Decoding, after a prompt of 128 tokens", "model | weights | batch | new tokens per second "
                 "| weights read, once per step", decoding),
    "fp8": ("8-bit products, scaling included", "tokens · width · inner width | type | rate "
            "| distance from the bfloat16 product", fp8),
    "shakespeare": ("Character-level Shakespeare", "steps | best validation loss | at step | tokens per second "
                    "| seconds with start and evaluations", shakespeare),
}  # fmt: skip


def name_of(row: dict) -> str:
    """Describes a row without figures."""
    known = (
        "what",
        "config",
        "length",
        "side",
        "rows",
        "backend",
        "kind",
        "shape",
        "dtype",
        "size",
        "weights",
        "batch",
    )
    return ", ".join(f"{name} {row[name]}" for name in known if name in row)


def tables(results: list[dict]) -> str:
    """Returns Markdown: a table for each device and part, followed by what has no figures, with the reasons."""
    text = ["# What was measured", "", "Written by `report.py`; medians, with the smallest and the largest turn.", ""]
    for device in dict.fromkeys(result["device"] for result in results):
        here = [result for result in results if result["device"] == device]
        text += [f"## {device}", "", "; ".join(sorted({provenance(result) for result in here})), ""]
        for part, (heading, columns, cells) in PARTS.items():
            mine = [result for result in here if result["part"] == part]
            rows = [row for result in mine for row in result["rows"] if "error" not in row]
            if mine:
                text += [f"### {heading}", ""]
            if rows:
                text += [f"| {columns} |", "|---" * (columns.count(" | ") + 1) + "|"]
                text += [f"| {' | '.join(cells(row))} |" for row in rows] + [""]
            for result in mine:
                text += [f"- {name_of(row)}: {row['error']}" for row in result["rows"] if "error" in row]
                text += [f"- {result['slice']}: {result['status']}. {result['reason']}"] if "reason" in result else []
            if text[-1].startswith("- "):
                text.append("")
    return "\n".join(text)


def provenance(result: dict) -> str:
    found = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return f"revision {result['revision']}, {result['when'][:10]}, {found or 'versions unknown'}"


def plot(results: list[dict], path: Path) -> None:
    """Plots the tokens per second of both sides by shape, for the fastest of several settings."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    best: dict[str, dict[str, dict]] = {}
    for result in results:
        for row in result["rows"]:
            if result["part"] == "training" and "error" not in row:
                sides = best.setdefault(f"{row['config']}\nT = {row['length']}\n{result['device'].split(',')[0]}", {})
                if row["tokens_per_second"] > sides.get(row["side"], {"tokens_per_second": 0})["tokens_per_second"]:
                    sides[row["side"]] = row
    if not best:
        return
    figure, axes = pyplot.subplots(figsize=(max(6, 1.6 * len(best)), 4), layout="constrained")
    for place, (side, label) in enumerate((("gptjax", "gptjax"), ("torch", "PyTorch, compiled"))):
        found = [(index, sides[side]) for index, sides in enumerate(best.values()) if side in sides]
        if found:
            middles = [row["tokens_per_second"] for _, row in found]
            spans = [[row["tokens_per_second"] - row["tokens_per_second_least"] for _, row in found],
                     [row["tokens_per_second_most"] - row["tokens_per_second"] for _, row in found]]  # fmt: skip
            axes.bar([index + 0.4 * place for index, _ in found], middles, 0.38, yerr=spans, capsize=3, label=label)
    axes.set_yscale("log")
    axes.set_xticks([index + 0.2 for index in range(len(best))], list(best), fontsize=8)
    axes.set_ylabel("tokens per second")
    axes.set_title("Training speed on one GPU: the fastest setting tried, median and extremes")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    results = latest(read_results([folder]))
    if not results:
        sys.exit(f"{folder} has no results.jsonl with a whole line")
    (folder / "README.md").write_text(tables(results) + "\n", encoding="utf-8")
    plot(results, folder / "training.png")
    print(f"{len(results)} slices: {folder / 'README.md'}, {folder / 'training.png'}")


if __name__ == "__main__":
    main()
