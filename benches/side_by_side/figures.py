"""From measurements to ratios, noise and verdicts. Pure: no clock, no process, no file."""

import statistics

import programs
import workloads


def spread(values):
    """None for no value."""
    values = [value for value in values if value is not None]
    if not values:
        return None
    low, high = min(values), max(values)
    if len(values) > 3:
        low_quarter, _, high_quarter = statistics.quantiles(values, n=4, method="inclusive")
    else:
        low_quarter, high_quarter = low, high
    return {
        "median": statistics.median(values), "min": low, "max": high,
        "q1": low_quarter, "q3": high_quarter, "n": len(values),
    }


def of(measurements, figure, workload, program):
    """Value by round."""
    return {
        m["round"]: m["figures"][figure]
        for m in measurements
        if m["workload"] == workload and m["program"] == program and not m["error"]
        and m["figures"].get(figure) is not None
    }


def ratios(measurements, figure, workload, program, base=programs.BASE):
    """Paired: only rounds in which both were measured."""
    mine, theirs = (of(measurements, figure, workload, name) for name in (program, base))
    return [mine[number] / theirs[number] for number in sorted(mine) if theirs.get(number)]


def noise(control):
    """How far from 1 the middle half of the ratios of the same program, measured twice, reaches."""
    return max(abs(control["q1"] - 1), abs(control["q3"] - 1)) if control else None


def summarise(measurements, names):
    """By figure and workload: noise, absolute figures, ratios to HAProxy, and the product's ratio to the floor."""
    present = [w.name for w in workloads.WORKLOADS if any(m["workload"] == w.name for m in measurements)]
    summary = {}
    for figure in workloads.FIGURES:
        for workload in present:
            control = spread(ratios(measurements, figure, workload, programs.CONTROL))
            summary.setdefault(figure, {})[workload] = {
                "noise": noise(control),
                "absolute": {n: spread(of(measurements, figure, workload, n).values()) for n in names},
                "ratio": {n: spread(ratios(measurements, figure, workload, n)) for n in names if n != programs.BASE},
                "to_floor": spread(ratios(measurements, figure, workload, programs.PRODUCT, programs.FLOOR)),
            }
    return summary


def verdict(median, must, slack, more):
    """`slack` is the noise; None is no control, so only the strict form can hold."""
    sign = -1 if more else 1
    if sign * median <= sign * must:
        return "holds"
    if slack is not None and sign * (median - must) <= slack:
        return "holds within noise"
    return "missed"


def verdicts(summary):
    """One row for each target and workload that was asked for, with or without a measurement."""
    rows = []
    for target in workloads.TARGETS:
        more = workloads.FIGURES[target.figure][2]
        for workload in target.workloads:
            entry = summary.get(target.figure, {}).get(workload)
            if entry is None:
                continue
            found, slack = entry["ratio"].get(programs.PRODUCT), entry["noise"]
            row = {
                "figure": target.figure, "workload": workload, "must": target.must, "aim": target.aim,
                "found": found, "noise": slack, "must_verdict": "not measured", "aim_verdict": "not measured",
            }
            if found:
                row["must_verdict"] = verdict(found["median"], target.must, slack, more)
                if target.aim is None:
                    floor = entry["to_floor"]
                    row["aim"] = entry["ratio"].get(programs.FLOOR, None) and entry["ratio"][programs.FLOOR]["median"]
                    reached = floor and verdict(floor["median"], 1.0, slack, more) != "missed"
                    row["aim_verdict"] = "not measured" if not floor else "reached" if reached else "not reached"
                else:
                    strict = verdict(found["median"], target.aim, None, more) == "holds"
                    row["aim_verdict"] = "reached" if strict else "not reached"
            rows.append(row)
    return rows


def idle_summary(idle, names):
    """By figure, number of sessions and program. Processor time is only measured with the most sessions."""
    summary = {}
    for target in workloads.IDLE_TARGETS:
        counts = sorted({step["sessions"] for one in idle if not one["error"] for step in one["figures"]["steps"]})
        for count in counts:
            for name in names:
                values = spread(
                    step.get(target.figure)
                    for one in idle
                    if one["program"] == name and not one["error"]
                    for step in one["figures"]["steps"]
                    if step["sessions"] == count
                )
                if values:
                    summary.setdefault(target.figure, {}).setdefault(count, {})[name] = values
    return summary


def idle_verdicts(summary):
    rows = []
    for target in workloads.IDLE_TARGETS:
        for count, by_program in summary.get(target.figure, {}).items():
            found = by_program.get(programs.PRODUCT)
            row = {"figure": target.figure, "sessions": count, "must": target.must, "aim": target.aim, "found": found,
                   "must_verdict": "not measured", "aim_verdict": "not measured"}
            if found:
                row["must_verdict"] = verdict(found["median"], target.must, None, False)
                strict = verdict(found["median"], target.aim, None, False) == "holds"
                row["aim_verdict"] = "reached" if strict else "not reached"
            rows.append(row)
    return rows


def failures(run):
    """Everything that was begun and says nothing."""
    told = [(f"round {m['round']}, {m['workload']}, {m['program']}", m["error"]) for m in run["measurements"]]
    told += [(f"idle sessions, {one['program']}, time {one['repetition']}", one["error"]) for one in run["idle"]]
    told += [(f"system calls, {one['program']}", one["error"]) for one in run["syscalls"]]
    return [(what, why) for what, why in told if why]


def order(names, number):
    """Another first in each round, and every other round backwards, so that nobody always follows the same one."""
    shift = number % len(names)
    turned = names[shift:] + names[:shift]
    return turned[::-1] if number % 2 else turned
