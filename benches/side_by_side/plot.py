"""The plot: ratios to HAProxy, a dot the median, a line from the least to the greatest. Pure: a run in, SVG out."""

import math
from xml.sax.saxutils import escape

import programs
import tables
import workloads

PANELS = [("cpu_us", "Processor time per request", "less is better"), ("rps", "Requests per second", "more is better")]
# Colours for a light and for a dark page; told apart without colour vision, too (Okabe and Ito).
COLOURS = {
    programs.PRODUCT: ("#d1495b", "#ff7a85"),
    programs.FLOOR: ("#6b7280", "#a3acb9"),
    "nginx": ("#00846b", "#2fc4a1"),
    "haproxy-2t": ("#0072b2", "#5ab4ee"),
    "haproxy-32k": ("#9c5fb5", "#cf9be6"),
    programs.DIRECT: ("#b07a00", "#e8b23a"),
}
# A panel, and beside it a column for the product's medians as numbers.
MARGIN, NAMES, PANEL, NUMBERS, GAP = 24, 236, 378, 38, 18
WIDTH = 2 * MARGIN + NAMES + 2 * (PANEL + NUMBERS) + GAP
ROW, LANE = 42, 7
HEAD, LABELS, FOOT = 92, 50, 66
# Of a bold label of 11 px in the widest font of the list.
CHARACTER = 7.0
BETWEEN_LABELS = 8
# Ratios outside are drawn at the edge, with an arrow's head.
LEAST, MOST = 0.25, 4.0
TICKS = [0.25, 0.33, 0.5, 0.67, 0.8, 1, 1.25, 1.5, 2, 3, 4]
LEAST_BETWEEN_TICKS = 34
# "HAProxy" is wider than a number.
LEAST_BESIDE_ONE = 46


class Axis:
    """Logarithmic: half as much and twice as much are as far from 1."""

    def __init__(self, left, values):
        low = max(LEAST, min([0.8, *values]) * 0.96)
        high = min(MOST, max([1.25, *values]) * 1.04)
        self.left, self.low, self.high = left, math.log(low), math.log(high)

    def x(self, ratio):
        inside = min(max(math.log(max(ratio, 1e-9)), self.low), self.high)
        return self.left + PANEL * (inside - self.low) / (self.high - self.low)

    def outside(self, ratio):
        return not self.low <= math.log(max(ratio, 1e-9)) <= self.high

    def ticks(self):
        """From 1 outwards, as far apart as their numbers are wide."""
        placed = [(1, self.x(1))]
        for tick in sorted(TICKS, key=lambda t: abs(math.log(t))):
            x = self.x(tick)
            if not self.outside(tick) and all(
                abs(x - other) >= (LEAST_BESIDE_ONE if ratio == 1 else LEAST_BETWEEN_TICKS) for ratio, other in placed
            ):
                placed.append((tick, x))
        return placed


def svg(run):
    names = [name for name in run["programs"] if name in COLOURS]
    rows = tables.present(run)
    height = HEAD + LABELS + ROW * len(rows) + FOOT
    out = [head(height, run)]
    for index, workload in enumerate(rows):
        y = HEAD + LABELS + ROW * index
        if index % 2 == 0:
            wide = WIDTH - 2 * MARGIN + 16
            out.append(f'<rect class="stripe" x="{MARGIN - 8}" y="{y}" width="{wide}" height="{ROW}"/>')
        out.append(text(MARGIN, y + ROW / 2 + 4, tables.BY_NAME[workload].label, "row"))
    for number, (figure, title, better) in enumerate(PANELS):
        left = MARGIN + NAMES + number * (PANEL + NUMBERS + GAP)
        out += panel(run["summary"].get(figure, {}), rows, names, left, title, better)
    out += foot(run, height)
    return "\n".join([*out, "</svg>", ""])


def panel(summary, rows, names, left, title, better):
    found = {row: summary.get(row, {"ratio": {}, "noise": None}) for row in rows}
    shown = [name for name in names if any(found[row]["ratio"].get(name) for row in rows)]
    edges = [r[key] for row in rows for name in shown if (r := found[row]["ratio"].get(name)) for key in ("min", "max")]
    axis, top, bottom = Axis(left, edges), HEAD + LABELS, HEAD + LABELS + ROW * len(rows)
    out = [text(left, HEAD - 8, title, "panel"), text(left + PANEL + NUMBERS, HEAD - 8, better, "small", "end")]
    for tick, x in axis.ticks():
        kind = "one" if tick == 1 else "grid"
        out.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        label = "HAProxy" if tick == 1 else f"{tick:g}x"
        out.append(text(x, bottom + 18, label, "small", "middle"))
    for index, row in enumerate(rows):
        out += lanes(found[row], shown, axis, top + ROW * index)
        if product := found[row]["ratio"].get(programs.PRODUCT):
            y = top + ROW * (index + 0.5) + 4
            out.append(text(left + PANEL + NUMBERS, y, f"{product['median']:.2f}", f"{programs.PRODUCT} label", "end"))
    return out + direct_labels(found, rows, shown, axis, left)


def lanes(entry, shown, axis, top):
    out = []
    if slack := entry["noise"]:
        low, high = axis.x(max(1 - slack, 1e-9)), axis.x(1 + slack)
        wide = max(high - low, 1)
        out.append(f'<rect class="noise" x="{low:.1f}" y="{top + 2}" width="{wide:.1f}" height="{ROW - 4}"/>')
    for place, name in enumerate(shown):
        ratio = entry["ratio"].get(name)
        if not ratio:
            continue
        y = lane(top, place, len(shown))
        low, high, middle = axis.x(ratio["min"]), axis.x(ratio["max"]), axis.x(ratio["median"])
        size = 5 if name == programs.PRODUCT else 3.6
        out.append(f'<line class="{name} range" x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        for edge, way in ((ratio["min"], -1), (ratio["max"], 1)):
            if axis.outside(edge):
                x = axis.x(edge)
                points = f"{x + 5 * way:.1f},{y:.1f} {x:.1f},{y - 3:.1f} {x:.1f},{y + 3:.1f}"
                out.append(f'<polygon class="{name} dot" points="{points}"/>')
        out.append(f'<circle class="{name} dot" cx="{middle:.1f}" cy="{y:.1f}" r="{size}"/>')
    return out


def lane(top, place, count):
    return top + ROW / 2 + (place - (count - 1) / 2) * LANE


def direct_labels(found, rows, shown, axis, left):
    """Names above the first row, each tied to its dot there, moved apart so that none covers another."""
    out, top = [], HEAD + LABELS
    row = next((row for row in rows if found[row]["ratio"]), None)
    if row is None:
        return out
    measured = {name: ratio for name in shown if (ratio := found[row]["ratio"].get(name))}
    dots = sorted((axis.x(ratio["median"]), name) for name, ratio in measured.items())
    widths = [len(short(name)) * CHARACTER for _, name in dots]
    room = PANEL + NUMBERS
    # A second line of names when one is too short for them.
    lines = 1 if sum(widths) + BETWEEN_LABELS * len(widths) <= room else 2
    for line in range(lines):
        mine = [i for i in range(len(dots)) if i % lines == line]
        starts = apart([dots[i][0] - widths[i] / 2 for i in mine], [widths[i] for i in mine], left, left + room)
        for start, i in zip(starts, mine, strict=True):
            x, name = dots[i]
            y, middle = HEAD + 14 + 14 * line, start + widths[i] / 2
            end = lane(top + ROW * rows.index(row), shown.index(name), len(shown)) - 5
            out.append(f'<path class="{name} tie" d="M{middle:.1f} {y + 4} L{x:.1f} {top - 6} L{x:.1f} {end:.1f}"/>')
            out.append(text(middle, y, short(name), f"{name} label", "middle"))
    return out


def apart(starts, widths, left, right, gap=BETWEEN_LABELS):
    """Moved right until none touches the one before, then left until the last one ends inside."""
    placed = []
    for start, width in zip(starts, widths, strict=True):
        least = placed[-1][0] + placed[-1][1] + gap if placed else left
        placed.append((max(start, least), width))
    end = right
    for i in range(len(placed) - 1, -1, -1):
        start, width = placed[i]
        placed[i] = (min(start, end - width), width)
        end = placed[i][0] - gap
    return [start for start, _ in placed]


def short(name):
    return programs.LABELS[name].replace("nginx stream", "nginx")


def head(height, run):
    rules = []
    for name, (light, _) in COLOURS.items():
        rules.append(f".{name}{{--c:{light}}}")
    dark = "".join(f".{name}{{--c:{colour}}}" for name, (_, colour) in COLOURS.items())
    style = (
        "svg{--page:#ffffff;--text:#1f2328;--soft:#59636e;--grid:#dfe3e8;--stripe:#f6f8fa;--noise:#8c959f}"
        + "".join(rules)
        + "@media(prefers-color-scheme:dark){svg{--page:#0d1117;--text:#e6edf3;--soft:#9198a1;--grid:#2a3038;"
        "--stripe:#151b23;--noise:#9198a1}" + dark + "}"
        "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;"
        "fill:var(--text);font-size:12px}.title{font-size:18px;font-weight:600}.panel{font-size:14px;font-weight:600}"
        ".small{fill:var(--soft);font-size:11px}"
        ".label{fill:var(--c);font-weight:600;font-size:11px}.page{fill:var(--page)}.stripe{fill:var(--stripe)}"
        ".grid{stroke:var(--grid)}.one{stroke:var(--soft);stroke-width:1.4}.noise{fill:var(--noise);opacity:.28}"
        ".range{stroke:var(--c);stroke-width:1.6;opacity:.75}.dot{fill:var(--c)}"
        ".tie{stroke:var(--c);fill:none;stroke-width:1;opacity:.55}"
    )
    rounds = run["settings"]["rounds"]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" aria-label="Processor time per request and requests per second, as ratios to HAProxy">',
        f"<style>{style}</style>",
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="10"/>',
        text(MARGIN, 36, "switchmaster beside HAProxy, nginx and a bare relay", "title"),
        text(MARGIN, 56, f"Ratio to HAProxy (one thread) in the same round: dot = median of {rounds} rounds, "
             "line = least to greatest, number = median of switchmaster", "small"),
    ])


def foot(run, height):
    machine = run["machine"]
    said = f"{machine['cpus']} processors, {machine['kernel']}, loopback; {run['begun'][:10]}"
    x, y = MARGIN, height - 20
    return [
        f'<rect class="noise" x="{x}" y="{y - 10}" width="22" height="12"/>',
        text(x + 30, y, "noise: HAProxy measured against itself (middle half of its ratios)", "small"),
        text(WIDTH - MARGIN, y, said, "small", "end"),
    ]


def text(x, y, said, kind, anchor="start"):
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'
