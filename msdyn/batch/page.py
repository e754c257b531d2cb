"""`index.html` of a batch: counts, throughput, cost, and clips with their pictures and reports."""

from __future__ import annotations

import base64
import posixpath
import time

from msdyn.batch.clips import Row, folder_name
from msdyn.batch.steps import CURES
from msdyn.batch.store import Store
from msdyn.batch.summary import Summary
from msdyn.errors import MsdynError
from msdyn.estimates import shown_seconds
from msdyn.html import Markup, element, page, section, table
from msdyn.memory import shown_bytes

__all__ = ["INDEX", "write_index"]

INDEX = "index.html"
THUMBNAIL = "thumbnail.jpg"
_LARGEST_THUMBNAIL = 200_000
_MOST_ROWS = 300
"""Of the quarantine, in the page; quarantine.parquet has all of them."""
_STYLE = Markup(
    "<style>.clips{display:grid;grid-template-columns:repeat(auto-fill,minmax(200px,1fr));"
    "gap:14px}.clips img{width:100%;border:1px solid var(--line)}.clips p{font-size:.85rem;"
    "overflow-wrap:anywhere}.bar{display:flex;height:16px;margin:.6rem 0;background:var(--line)}"
    ".bar i{display:block;height:100%}.none{background:var(--line);aspect-ratio:3/2}</style>"
)
_COLOURS = {"done": "#15803d", "poor": "#b45309", "bad-input": "#6b7280"}
_OTHER = "#b91c1c"


def write_index(store: Store, summary: Summary, total: int, title: str, link: str = "") -> str:
    """Write the page of a batch; return its path or URL.

    Args:
        store: of the batch.
        summary: of its rows.
        total: number of its clips.
        title: of the page.
        link: address of Ray's dashboard.

    Raises:
        ResourceError: the store refuses.
    """
    parts = [
        _STYLE,
        element("h1", title),
        _head(summary, total, link),
        _reasons(summary, total),
        _stages(summary),
    ]
    if summary.quarantine:
        parts.append(_quarantine(store, summary))
    groups = (
        ("Lowest PSNR of frames kept out of the fit", [r for _, r in summary.worst], "psnr"),
        ("Slowest clips", [r for _, r in summary.slowest], "seconds"),
        ("Latest clips", list(summary.latest)[::-1], ""),
    )
    seconds = {row.clip: value for value, row in summary.slowest}
    for heading, rows, kind in groups:
        if rows:
            cards = [_card(store, row, _caption(row, kind, seconds)) for row in rows]
            parts.append(section(heading, element("div", *cards, class_="clips")))
    store.write(INDEX, page(title, *parts).encode())
    return store.place(INDEX)


def _head(summary: Summary, total: int, link: str) -> Markup:
    ended = sum(summary.counts.values())
    rate = summary.clips_per_hour
    figures = [
        (f"{ended} of {total}", "clips have ended"),
        (str(summary.done), "done"),
        (str(summary.quarantined), "in quarantine"),
        (f"{rate:.3g}", "clips an hour"),
        (shown_seconds(summary.seconds), "since the first stage began"),
        (shown_seconds(summary.per_clip("cpu_seconds")), "of a CPU core per clip"),
        (f"{summary.per_clip('gpu_seconds') / 3600:.3f}", "GPU-hours per clip"),
    ]
    shown = [element("div", element("b", value), element("span", name)) for value, name in figures]
    left = (
        f", about {shown_seconds(3600 * (total - ended) / rate)} left"
        if rate and ended < total
        else ""
    )
    note = element("p", f"Written {time.strftime('%F %T')}{left}", class_="soft")
    parts = [element("div", *shown, class_="figures"), note]
    if link.startswith(("http://", "https://")):
        parts.append(element("p", element("a", "Ray's dashboard", href=link)))
    return Markup("").join(parts)


def _reasons(summary: Summary, total: int) -> Markup:
    counts = {name: count for name, count in summary.counts.most_common() if count}
    bar = [
        element(
            "i",
            style=f"width:{100 * n / max(1, total):.3f}%;background:{_COLOURS.get(s, _OTHER)}",
            title=f"{s}: {n}",
        )
        for s, n in counts.items()
    ]
    rows = [[name, str(count), CURES.get(name, "")] for name, count in counts.items()]
    running = total - sum(counts.values())
    if running:
        rows.append(["not ended yet", str(running), ""])
    rows += [[f"done, scene {grade}", str(n), ""] for grade, n in summary.verdicts.most_common()]
    return section(
        "How the clips ended",
        element("div", *bar, class_="bar"),
        table(["", "clips", "what to do"], rows, numbers=False),
    )


def _stages(summary: Summary) -> Markup:
    rows = []
    for stage, figures in summary.stages.items():
        tries = figures.done + figures.failed
        if tries:
            rows.append(
                [
                    stage,
                    str(figures.done),
                    str(figures.failed),
                    f"{figures.seconds / tries:.1f}",
                    f"{figures.longest:.1f}",
                    f"{figures.cpu_seconds / tries:.1f}",
                    f"{figures.gpu_seconds / tries:.1f}",
                    shown_bytes(figures.peak_memory),
                ]
            )
    head = ["stage", "done", "failed", "mean s", "longest s", "CPU s", "GPU s", "peak memory"]
    return section("Stages", table(head, rows))


def _quarantine(store: Store, summary: Summary) -> Markup:
    rows = []
    for row in sorted(summary.quarantine.values(), key=lambda r: (r.ended, r.clip))[:_MOST_ROWS]:
        again = f" (attempt {row.attempt}{', smaller images' if row.smaller else ''})"
        rows.append(
            [
                element("a", row.clip, href=f"{_folder(row)}/log.txt"),
                row.ended,
                row.stage + (again if row.attempt > 1 else ""),
                f"{row.error_class}: {row.error}" if row.error_class else row.error,
            ]
        )
    more = len(summary.quarantine) - len(rows)
    parts = [table(["clip", "reason", "stage", "error"], rows, numbers=False)]
    if more > 0:
        parts.append(element("p", f"and {more} more in quarantine.parquet", class_="soft"))
    return section("Quarantine", *parts)


def _caption(row: Row, kind: str, seconds: dict[str, float]) -> str:
    parts = [f"{row.psnr:.1f} dB"] if row.psnr is not None else []
    if kind == "seconds":
        parts.insert(0, shown_seconds(seconds[row.clip]))
    return ", ".join([*parts, *([f"scene {row.verdict}"] if row.verdict else [])])


def _card(store: Store, row: Row, caption: str) -> Markup:
    """Return the picture of a clip, linked to its report."""
    try:
        content = store.read(f"clips/{folder_name(row.clip)}/{THUMBNAIL}")
    except MsdynError:
        content = None
    if content and len(content) <= _LARGEST_THUMBNAIL:
        source = f"data:image/jpeg;base64,{base64.b64encode(content).decode('ascii')}"
        picture = Markup('<img alt="{}" src="{}">').format(row.clip, source)
    else:
        picture = element("div", class_="none")
    report = "fit/report.html" if row.stage in ("fit", "evaluate") else "preprocess_report.html"
    link = element("a", picture, href=posixpath.join(_folder(row), "scene", report))
    return element("div", link, element("p", element("b", row.clip), " ", caption))


def _folder(row: Row) -> str:
    # Escaped once more: "%" in a name is not that of a URL.
    return f"clips/{folder_name(row.clip)}".replace("%", "%25")
