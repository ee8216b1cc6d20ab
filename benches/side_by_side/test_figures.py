"""Planted measurements: what the report would say of a program that is known to be so much faster."""

import unittest

import figures
import loads
import plot
import programs
import scraped
import tables
import workloads

NAMES = ["switchmaster", "floor", "haproxy", "haproxy-again", "direct"]
# As redis-benchmark 7.0 prints it, shortened.
SAID = """====== GET ======
  20000 requests completed in 0.27 seconds
  50 parallel clients
50.000% <= 0.303 milliseconds (cumulative count 12010)
99.805% <= 4.799 milliseconds (cumulative count 19961)
99.902% <= 4.991 milliseconds (cumulative count 19981)
100.000% <= 5.303 milliseconds (cumulative count 20000)

Summary:
  throughput summary: 74626.87 requests per second
  latency summary (msec):
          avg       min       p50       p95       p99       max
        0.375     0.112     0.303     0.455     3.063     5.303
"""


def measurement(number, program, cpu, workload="get50", error=None):
    seen = {} if error else {"cpu_us": cpu, "rps": 1e6 / cpu, "p50_ms": cpu, "p99_ms": cpu, "p999_ms": None}
    if program == programs.DIRECT:
        seen.pop("cpu_us", None)
    return {"round": number, "workload": workload, "program": program, "figures": seen, "error": error}


def planted(product, again=(1.0, 1.02, 0.98, 1.01, 0.99), base=10.0):
    """Rounds in which the machine gets slower and slower, and the ratios stay what they are."""
    out = []
    for number, control in enumerate(again, 1):
        haproxy = base * number
        by_program = {"switchmaster": product, "floor": 0.8, "haproxy": 1.0, "haproxy-again": control, "direct": 0.5}
        out += [measurement(number, name, haproxy * factor) for name, factor in by_program.items()]
    return out


class Ratios(unittest.TestCase):
    def test_pairs_are_of_the_same_round(self):
        found = figures.spread(figures.ratios(planted(0.9), "cpu_us", "get50", "switchmaster"))
        for key in ("median", "min", "max"):
            self.assertAlmostEqual(found[key], 0.9)

    def test_a_failed_measurement_leaves_its_round_out(self):
        measurements = planted(0.9)
        measurements[0] = measurement(1, "switchmaster", None, error="not done")
        self.assertEqual(len(figures.ratios(measurements, "cpu_us", "get50", "switchmaster")), 4)

    def test_noise_is_the_middle_half_of_the_control(self):
        entry = figures.summarise(planted(0.9), NAMES)["cpu_us"]["get50"]
        self.assertAlmostEqual(entry["noise"], 0.01)

    def test_a_shift_of_the_whole_control_is_noise_too(self):
        entry = figures.summarise(planted(0.9, again=[1.1] * 5), NAMES)["cpu_us"]["get50"]
        self.assertAlmostEqual(entry["noise"], 0.1)


class Verdicts(unittest.TestCase):
    def verdict(self, product, figure, again=(1.0, 1.02, 0.98, 1.01, 0.99)):
        rows = figures.verdicts(figures.summarise(planted(product, again), NAMES))
        return next((row["must_verdict"], row["aim_verdict"]) for row in rows if row["figure"] == figure)

    def test_less_processor_time_is_better(self):
        self.assertEqual(self.verdict(0.87, "cpu_us"), ("holds", "reached"))
        self.assertEqual(self.verdict(0.94, "cpu_us"), ("holds", "not reached"))
        self.assertEqual(self.verdict(0.955, "cpu_us"), ("holds within noise", "not reached"))
        self.assertEqual(self.verdict(1.05, "cpu_us"), ("missed", "not reached"))

    def test_more_requests_are_better(self):
        self.assertEqual(self.verdict(0.9, "rps"), ("holds", "reached"))
        self.assertEqual(self.verdict(1.2, "rps"), ("missed", "not reached"))

    def test_without_the_product_nothing_is_said(self):
        others = [m for m in planted(0.9) if m["program"] != "switchmaster"]
        rows = figures.verdicts(figures.summarise(others, NAMES))
        self.assertTrue(rows)
        self.assertEqual({row["must_verdict"] for row in rows}, {"not measured"})

    def test_idle_sessions_have_no_noise(self):
        steps = [{"sessions": 1000, "kib_per_session": 2.04, "descriptors_per_session": 2.0,
                  "idle_cpu_percent": 0.01}]
        idle = [{"program": "switchmaster", "repetition": 1, "error": None, "figures": {"steps": steps}}]
        rows = figures.idle_verdicts(figures.idle_summary(idle, NAMES))
        self.assertEqual([row["must_verdict"] for row in rows], ["missed", "holds", "holds"])


class RedisBenchmark(unittest.TestCase):
    def test_its_figures(self):
        self.assertEqual(
            loads.parse(SAID, 20_000),
            {"requests": 20_000, "rps": 74626.87, "p50_ms": 0.303, "p99_ms": 3.063, "p999_ms": 4.991},
        )

    def test_what_is_cut_short_or_complains_is_a_failure(self):
        complaint = SAID + "Error from server: ERR max clients\n"
        for said in ("", SAID[:200], complaint, SAID.replace("20000 req", "19 req")):
            with self.assertRaises(loads.Failed):
                loads.parse(said, 20_000)

    def test_requests_are_whole_pipelines_and_bounded(self):
        by_name = tables.BY_NAME
        self.assertEqual(loads.requests_for(by_name["get50p16"], 1_000_003, 1.0) % 16, 0)
        self.assertEqual(loads.requests_for(by_name["get500"], 1.0, 0.1), 500)
        self.assertEqual(loads.requests_for(by_name["churn"], 1e6, 10), by_name["churn"].most)


class Order(unittest.TestCase):
    def test_everybody_is_first_once_and_nobody_always_follows_the_same(self):
        rounds = [figures.order(NAMES, number) for number in range(len(NAMES) * 2)]
        self.assertEqual({names[0] for names in rounds}, set(NAMES))
        before = {names[i - 1] for names in rounds for i in range(1, len(names)) if names[i] == "haproxy"}
        self.assertGreater(len(before), 1)
        self.assertTrue(all(sorted(names) == sorted(NAMES) for names in rounds))


class Reports(unittest.TestCase):
    def run_of(self, measurements):
        summary = figures.summarise(measurements, NAMES)
        return {
            "programs": NAMES, "measurements": measurements, "idle": [], "syscalls": [], "idle_summary": {},
            "idle_verdicts": [], "summary": summary, "verdicts": figures.verdicts(summary),
            "begun": "2026-01-01T00:00:00", "command": "scripts/bench", "commit": "0", "versions": {},
            "seconds_taken": 1.0,
            "settings": {"rounds": 5, "seconds": 1.0},
            "machine": {"virtual": True, "cpus": 2, "processor": "P", "memory_gib": 1.0, "system": "S", "kernel": "K",
                        "congestion_control": "c", "descriptors": 1, "busy_before_percent": 0.0},
        }

    def test_a_failure_is_told(self):
        measurements = [*planted(0.9), measurement(6, "floor", None, error="not done within 20 s")]
        for said in (tables.text(self.run_of(measurements)), tables.markdown(self.run_of(measurements), None)):
            self.assertIn("1 measurement(s) FAILED", said)
            self.assertIn("round 6, get50, floor: not done within 20 s", said)

    def test_what_lies_within_the_noise_is_marked(self):
        self.assertIn("≈1.00 (1.00-1.00)", tables.text(self.run_of(planted(1.0))))
        self.assertIn("  0.90 (0.90-0.90)", tables.text(self.run_of(planted(0.9))))

    def test_the_plot_draws_everybody_and_nothing_outside(self):
        drawn = plot.svg(self.run_of(planted(7.0)))
        for name in ("switchmaster", "floor", "direct"):
            self.assertIn(f'class="{name} dot"', drawn)
        axis = plot.Axis(0, [0.01, 90])
        self.assertTrue(all(0 <= axis.x(ratio) <= plot.PANEL for ratio in (0.001, 0.5, 1, 1000)))

    def test_labels_do_not_touch_and_stay_inside(self):
        widths = [80, 70, 60]
        starts = plot.apart([50, 55, 260], widths, 0, 300)
        ends = [start + width for start, width in zip(starts, widths)]
        self.assertTrue(starts[0] >= 0 and ends[-1] <= 300)
        self.assertTrue(all(ends[i] < starts[i + 1] for i in range(2)))


class Scraped(unittest.TestCase):
    def rows(self, cpu, failed=()):
        planted = []
        for number, (off, again) in enumerate([(10, 10.05), (12, 11.95), (11, 11.04), (10, 9.96)], 1):
            for arm, value in ((scraped.OFF, off), (scraped.ON, off * cpu), (scraped.AGAIN, again)):
                error = "it failed" if (number, arm) in failed else None
                planted.append(measurement(number, arm, value, error=error))
        return {row["figure"]: row for row in scraped.summarise(planted)}

    def test_what_scraping_costs_is_a_ratio_within_the_round(self):
        rows = self.rows(1.03)
        self.assertAlmostEqual(rows["cpu_us"]["ratio"]["median"], 1.03)
        self.assertAlmostEqual(rows["rps"]["ratio"]["median"], 1 / 1.03)
        self.assertEqual({row["verdict"] for row in rows.values()}, {"missed"})
        self.assertTrue(0.003 < rows["cpu_us"]["noise"] < 0.006)
        for cpu, verdict in ((1.0, "holds"), (1.009, "holds"), (1.013, "holds within noise")):
            self.assertEqual({row["verdict"] for row in self.rows(cpu).values()}, {verdict}, cpu)

    def test_rounds_that_failed_count_nowhere_and_the_table_shows_each_row(self):
        rows = self.rows(1.0, failed={(2, scraped.ON)})
        self.assertEqual(rows["rps"]["ratio"]["n"], 3)
        table = scraped.table(list(rows.values()))
        self.assertIn("1.0000 (1.0000 to 1.0000)", table)
        self.assertEqual(table.count("get50 "), 2)


class Targets(unittest.TestCase):
    def test_they_name_workloads_that_exist(self):
        for target in workloads.TARGETS:
            self.assertTrue(set(target.workloads) <= set(workloads.ALL))


if __name__ == "__main__":
    unittest.main()
