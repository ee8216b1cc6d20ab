"""The report: as text for a terminal, as Markdown for docs/benchmarks.md. Pure: a run in, text out."""

import os

import figures
import programs
import workloads

BY_NAME = {w.name: w for w in workloads.WORKLOADS}
NONE = "-"
# A ratio that the noise reaches as well is no difference.
WITHIN = "≈"
# With more of other work before the start, figures are only a smoke test.
NOT_QUIET_PERCENT = 5

READING = [
    "Ratios are to HAProxy in the same round: the median of the rounds, in brackets the least and the greatest. Less "
    "is better, except for requests per second.",
    f"'{WITHIN}' marks a median that lies within the noise: no farther from 1 than the middle half of the ratios of "
    "HAProxy to HAProxy, which is measured as two programs. Nothing is claimed there.",
    "A must 'holds within noise' when it is missed by no more than that.",
]
METHOD = [
    "Everything runs on one machine over loopback, so client, proxy and server compete for its processors, and "
    "requests per second are the machine's figure as much as the proxy's. Processor time is the proxy's alone.",
    "Requests come from redis-benchmark; in each round every program is measured once for each workload, in another "
    "order each round. Processor time is that of all threads of the proxy, until its connections are closed.",
    "switchmaster follows three real Sentinels in its default configuration. HAProxy runs in TCP mode with one thread "
    "(or two), long timeouts, no log and no checks; nginx with one worker and buffers of 32 KiB. The bare floor "
    "(`benches/floor.rs`) is a relay without any feature: what switchmaster costs above it is what its features cost.",
    "Idle sessions are measured on freshly started programs, each session after one PING.",
]


def number(value):
    """Three digits that count, and no exponent."""
    if value is None:
        return NONE
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.995 else f"{value:.3f}"


def ratio(found, slack):
    if not found:
        return NONE
    mark = WITHIN if slack is not None and abs(found["median"] - 1) <= slack else ""
    return f"{mark}{found['median']:.2f} ({found['min']:.2f}-{found['max']:.2f})"


def percent(slack):
    return NONE if slack is None else f"{100 * slack:.1f} %"


def ratio_tables(run):
    """(title, header, rows) of each figure."""
    names = run["programs"]
    for figure, (title, unit, _) in workloads.FIGURES.items():
        # Without a proxy there is no processor time of one.
        shown = [n for n in names if n != programs.BASE and (n != programs.DIRECT or figure != "cpu_us")]
        header = ["workload", f"HAProxy, {unit}", "noise", *(programs.LABELS[n] for n in shown)]
        both = programs.PRODUCT in names and programs.FLOOR in names
        header += ["switchmaster / floor"] if both else []
        rows = []
        for workload, entry in run["summary"].get(figure, {}).items():
            base = entry["absolute"].get(programs.BASE)
            row = [workload, number(base and base["median"]), percent(entry["noise"])]
            row += [ratio(entry["ratio"].get(name), entry["noise"]) for name in shown]
            row += [ratio(entry["to_floor"], entry["noise"])] if both else []
            rows.append(row)
        yield f"{title} (x HAProxy)", header, rows


def absolute_tables(run):
    names = run["programs"]
    for figure, (title, unit, _) in workloads.FIGURES.items():
        shown = [n for n in names if n != programs.DIRECT or figure != "cpu_us"]
        rows = []
        for workload, entry in run["summary"].get(figure, {}).items():
            found = (entry["absolute"].get(name) for name in shown)
            rows.append([workload, *(number(one and one["median"]) for one in found)])
        yield f"{title}, {unit}", ["workload", *(programs.LABELS[n] for n in shown)], rows


def verdict_table(run):
    header = ["figure", "workload", "must", "aim", "measured", "noise", "verdict on must", "on aim"]
    rows = []
    for row in run["verdicts"]:
        title, _, more = workloads.FIGURES[row["figure"]]
        sign = ">=" if more else "<="
        aim = "floor" if row["aim"] is None else f"{sign} {row['aim']:.2f}"
        rows.append([title, row["workload"], f"{sign} {row['must']:.2f}", aim, ratio(row["found"], None),
                     percent(row["noise"]), row["must_verdict"], row["aim_verdict"]])
    by_figure = {target.figure: target for target in workloads.IDLE_TARGETS}
    for row in run["idle_verdicts"]:
        target, found = by_figure[row["figure"]], row["found"]
        measured = NONE if not found else f"{number(found['median'])} {target.unit}".strip()
        rows.append([target.title, f"{row['sessions']} sessions", f"<= {row['must']:g}", f"<= {row['aim']:g}",
                     measured, NONE, row["must_verdict"], row["aim_verdict"]])
    return "Targets", header, rows


def idle_table(run):
    names = [name for name in run["programs"] if name != programs.DIRECT]
    rows = []
    for target in workloads.IDLE_TARGETS:
        for count, found in run["idle_summary"].get(target.figure, {}).items():
            unit = f", {target.unit}" if target.unit else ""
            cells = (found.get(name) for name in names)
            rows.append([f"{target.title}{unit}", str(count), *(number(one and one["median"]) for one in cells)])
    return "Idle sessions", ["figure", "sessions", *(programs.LABELS[n] for n in names)], rows


def syscall_table(run):
    names = [name for name in run["programs"] if name != programs.DIRECT]
    found = {(one["workload"], one["program"]): one["per_request"] for one in run["syscalls"]}
    counted = list(dict.fromkeys(one["workload"] for one in run["syscalls"]))
    rows = [[workload, *(number(found.get((workload, name))) for name in names)] for workload in counted]
    return "System calls per request", ["workload", *(programs.LABELS[n] for n in names)], rows


def tables(run):
    """All that have a row."""
    every = [verdict_table(run), *ratio_tables(run), *absolute_tables(run), idle_table(run), syscall_table(run)]
    return [table for table in every if table[2]]


def facts(run):
    machine, settings, taken = run["machine"], run["settings"], run["seconds_taken"]
    kind = "virtual machine" if machine["virtual"] else "machine"
    return [
        ("date", run["begun"]),
        ("command", run["command"]),
        ("machine", f"{kind}, {machine['cpus']} processors ({machine['processor']}), {machine['memory_gib']} GiB"),
        ("system", f"{machine['system']}, {machine['kernel']}, congestion control {machine['congestion_control']}"),
        ("descriptors", f"at most {machine['descriptors']} a process"),
        *run["versions"].items(),
        ("commit", run["commit"]),
        ("rounds", f"{settings['rounds']}, {settings['seconds']:g} s a measurement, {taken:.0f} s in all"),
        ("quiet", quiet(run)),
    ]


def quiet(run):
    steal = sum(m["figures"].get("steal_s", 0) for m in run["measurements"])
    busy = run["machine"]["busy_before_percent"]
    judged = "yes" if busy < NOT_QUIET_PERCENT else "NO"
    return (f"{judged}: processors {busy:.1f} % busy with other things just before, {steal:.1f} s of processor time "
            "stolen by the host meanwhile")


def verdict_line(run):
    every = [row["must_verdict"] for row in run["verdicts"] + run["idle_verdicts"]]
    counts = [f"{every.count(word)} {word}" for word in dict.fromkeys(every)]
    return f"Musts: {', '.join(counts)}." if counts else "No target was measured."


def failed_lines(run):
    failed = figures.failures(run)
    return [f"{len(failed)} measurement(s) FAILED and are missing above:", *(f"{what}: {why}" for what, why in failed)]


def text(run):
    parts = ["\n".join(f"{key:>16}  {value}" for key, value in facts(run))]
    for title, header, rows in tables(run):
        widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
        lines = [title, ""]
        for row in [header, *rows]:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            lines.append("  " + "  ".join(cells).rstrip())
        parts.append("\n".join(lines))
    parts.append("\n".join(READING))
    parts.append(verdict_line(run))
    if figures.failures(run):
        parts.append("\n  ".join(failed_lines(run)))
    return "\n\n".join(parts)


def markdown(run, picture):
    parts = ["# Benchmarks", "Written by `scripts/bench --markdown`; run it to get the table of your machine."]
    parts.append("\n".join(f"- {key}: {code(key, value)}" for key, value in facts(run)))
    parts.append(verdict_line(run))
    if figures.failures(run):
        first, *rest = failed_lines(run)
        parts.append("\n".join([f"**{first}**", "", *(f"- {line}" for line in rest)]))
    if picture:
        parts.append(f"![Processor time and requests per second beside HAProxy]({os.path.basename(picture)})")
    parts.append("## How to read it")
    parts.append("\n".join(f"- {line}" for line in READING))
    parts.append("## How it was measured")
    parts.append("\n".join(f"- {line}" for line in METHOD))
    parts.append("\n".join(f"- `{name}`: {BY_NAME[name].label}" for name in present(run)))
    for title, header, rows in tables(run):
        lines = [" | ".join(row) for row in [header, ["---"] * len(header), *rows]]
        parts.append("\n".join([f"## {title}", "", *(f"| {line} |" for line in lines)]))
    return "\n\n".join(part for part in parts if part) + "\n"


def code(key, value):
    return f"`{value}`" if key == "command" else value


def present(run):
    return list(dict.fromkeys(m["workload"] for m in run["measurements"]))
