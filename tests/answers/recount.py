"""Counts the answers to all questions again, without wattline, and prints them as expected.json.

    recount.py <data folder> <reference folder> > expected.json

Needs numpy. The data folder holds readings, readings_scenario, device_metrics and transactions (.ndjson.gz), meters.csv and
device_labels.json; the reference folder workflow_steps.csv and workflow_transitions.csv. Numbers are rounded to 9 decimals,
seconds of cases to milliseconds.
"""

import cmath
import csv
import gzip
import json
import math
import sys
from collections import Counter, defaultdict
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np

PHASES = "abc"
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def lines(path: Path) -> list[dict]:
    with gzip.open(path, "rt") as file:
        rows = [json.loads(line) for line in file]
    for row in rows:
        at = datetime.fromisoformat(row["ts"].replace("Z", "+00:00"))
        row["us"] = (at - EPOCH) // timedelta(microseconds=1)
    return rows


def by(rows: list[dict], *names: str) -> dict:
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in names) if len(names) > 1 else row[names[0]]].append(row)
    for group in groups.values():
        group.sort(key=lambda row: row["us"])  # keeps the order of the file within one instant
    return groups


def to_9(value: float) -> float:
    return round(float(value), 9)


def percentile_s(us: list[int], percent: int) -> float:
    """Percentile between two ranks, in proportion, of microseconds: as seconds, rounded half up to milliseconds."""
    ranked, place = sorted(us), Fraction(percent, 100) * (len(us) - 1)
    low = ranked[int(place)]
    high = ranked[min(int(place) + 1, len(us) - 1)]
    return math.floor((low + (high - low) * (place - int(place))) / 1000 + Fraction(1, 2)) / 1000


def windows(rows: list[dict], minutes: int) -> dict[int, list[dict]]:
    groups = defaultdict(list)
    for row in rows:
        groups[row["us"] // (minutes * 60_000_000) * minutes * 60].append(row)
    return groups


def voltage_windows(meters: dict, nominal: int) -> dict:
    high, low = nominal * 1.07, nominal * 0.90
    points, near = {}, 0
    for meter, rows in meters.items():
        for phase in PHASES:
            means = []
            for window in windows(rows, 10).values():
                values = [row[f"v_{phase}"] for row in window if row[f"v_{phase}"] is not None]
                if values:
                    means.append(round(math.fsum(values) / len(values), 6))
            if means:
                over = sum(mean > high and not math.isclose(mean, high, abs_tol=1e-9) for mean in means)
                under = sum(mean < low and not math.isclose(mean, low, abs_tol=1e-9) for mean in means)
                points[f"{meter}/{phase}"] = {"windows": len(means), "over": over, "under": under}
                near += sum(min(abs(mean - high), abs(mean - low)) < 1.000001e-6 for mean in means)
    total = {name: sum(point[name] for point in points.values()) for name in ("windows", "over", "under")}
    return {
        "total_windows": total["windows"],
        "total_over": total["over"],
        "total_under": total["under"],
        "near_limit": near,
        "per_meter_phase": points,
    }


def voltage_qualification(meters: dict, nominal: int, worst: str) -> dict:
    high, low = Decimal(nominal) * Decimal("1.07"), Decimal(nominal) * Decimal("0.90")
    rates = {}
    for meter, rows in meters.items():
        values = [Decimal(str(row[f"v_{phase}"])) for row in rows for phase in PHASES if row[f"v_{phase}"] is not None]
        if values:
            out = sum(value > high or value < low for value in values)
            rates[meter] = {"samples": len(values), "out": out, "rate_pct": to_9(100 * (1 - out / len(values)))}
    return {worst: min(rates, key=lambda meter: (rates[meter]["rate_pct"], meter)), "all": rates}


def runs(rows: list[dict], belongs) -> list[list[dict]]:
    """Runs of rows that belong, at most a minute apart."""
    found: list[list[dict]] = []
    for row in rows:
        if belongs(row):
            if found and row["us"] - found[-1][-1]["us"] <= 60_000_000:
                found[-1].append(row)
            else:
                found.append([row])
    return found


def flat_run(rows: list[dict]) -> dict | None:
    best, length, first = None, 0, None
    for before, row in zip([None, *rows], rows):
        if row["p_kw"] is None:
            length = 0
            continue
        length, first = (length + 1, first) if length and row["p_kw"] == before["p_kw"] else (1, row["ts"])
        if best is None or length > best["minutes"]:
            best = {"minutes": length, "first_ts": first}
    return best


def unbalance(meters: dict) -> dict:
    answer = {}
    a = complex(-0.5, math.sqrt(3) / 2)
    for meter, rows in meters.items():
        minutes = []
        for row in rows:
            if any(row.get(f"ang_{phase}") is None or row[f"v_{phase}"] is None for phase in PHASES):
                continue
            volts = [row[f"v_{phase}"] for phase in PHASES]
            mean = sum(volts) / 3
            va, vb, vc = (v * cmath.exp(1j * math.radians(row[f"ang_{phase}"])) for v, phase in zip(volts, PHASES))
            vuf = 100 * abs(va + a * a * vb + a * vc) / abs(va + a * vb + a * a * vc)
            minutes.append({**row, "nema": 100 * max(abs(v - mean) for v in volts) / mean, "vuf": vuf})
        if not minutes:
            continue
        rms = [math.sqrt(math.fsum(m["vuf"] ** 2 for m in window) / len(window)) for window in windows(minutes, 10).values()]
        nema, vuf = (max(minutes, key=lambda m: m[name]) for name in ("nema", "vuf"))
        answer[meter] = {
            "max_nema_pct": to_9(nema["nema"]),
            "max_nema_ts": nema["ts"],
            "max_vuf_pct": to_9(vuf["vuf"]),
            "max_vuf_ts": vuf["ts"],
            "vuf_10min_p95_pct": to_9(np.percentile(rms, 95)),
            "vuf_10min_over_2pct": sum(value > 2 for value in rms),
        }
    return answer


def power(rows: list[dict]) -> Decimal:
    return sum((Decimal(str(row["p_kw"])) for row in rows if row["p_kw"] is not None), Decimal(0))


def readings_answers(meters: dict, register: dict):
    rows = [row for of_meter in meters.values() for row in of_meter]
    of_count = Counter(len(of_meter) for of_meter in meters.values())
    yield "r01_counts", "rows in readings; distinct meter_id; rows per meter as {rows: number of meters}", {
        "rows": len(rows),
        "meters": len(meters),
        "rows_per_meter": {str(count): meters for count, meters in of_count.items()},
    }
    uci = meters.get("UCI-1", [])
    missing = runs(uci, lambda row: row["v_a"] is None)
    yield "r04_missing_uci", "UCI-1: rows whose v_a is null, and the runs of consecutive such minutes as [first, last]", {
        "null_minutes": sum(map(len, missing)),
        "runs": [[run[0]["ts"], run[-1]["ts"]] for run in missing],
    }
    absent = {
        meter: sum(max(b["us"] - a["us"] - 60_000_000, 0) // 60_000_000 for a, b in zip(rows, rows[1:]))
        for meter, rows in meters.items()
    }
    yield "r05_absent_minutes", "per meter: minutes between its first and last reading that have none", {
        meter: minutes for meter, minutes in absent.items() if minutes
    }
    days = {meter: defaultdict(list) for meter in meters}
    for row in rows:
        if row["p_kw"] is not None:
            days[row["meter_id"]][row["ts"][:10]].append(row)
    yield "r06_daily_kwh", "per meter and local day: sum of p_kw / 60", {
        meter: {day: to_9(power(rows) / 60) for day, rows in of_meter.items()} for meter, of_meter in days.items()
    }
    registers = {
        meter: [Decimal(str(row["e_kwh"])) for row in rows if row["e_kwh"] is not None]
        for meter, rows in meters.items()
        if meter.startswith("LV-")
    }
    yield "r07_register_check", "per LV meter: last e_kwh less first e_kwh", {
        meter: float(values[-1] - values[0]) for meter, values in registers.items() if values
    }
    of_feeder = [meter for meter in meters if register[meter]["feeder"] == "LVTest"]
    supplied = sum(power(meters[meter]) for meter in of_feeder if register[meter]["kind"] == "feeder_head") / 60
    sold = sum(power(meters[meter]) for meter in of_feeder if register[meter]["kind"] == "customer") / 60
    yield "r08_line_loss", "feeder LVTest: energy of its head, of its customers, the difference, and its share in per cent", {
        "supplied_kwh": to_9(supplied),
        "sold_kwh": to_9(sold),
        "loss_kwh": to_9(supplied - sold),
        "loss_pct": to_9(100 * (supplied - sold) / supplied),
    }
    demand = {}
    for meter, of_meter in meters.items():
        full = {at: [r["p_kw"] for r in window if r["p_kw"] is not None] for at, window in windows(of_meter, 15).items()}
        means = {at: sum(map(lambda p: Decimal(str(p)), values)) / 15 for at, values in full.items() if len(values) == 15}
        if means:
            at = min(means, key=lambda at: (-means[at], at))
            demand[meter] = {"kw": to_9(means[at]), "window_start_epoch": at}
    yield "r09_max_demand", "per meter: highest mean p_kw of 15-minute windows with 15 values, and the first such window", demand
    uneven = {}
    head = [row for row in meters.get("LV-HEAD", []) if all(row[f"i_{phase}"] is not None for phase in PHASES)]
    for at, window in windows(head, 15).items():
        means = [math.fsum(row[f"i_{phase}"] for row in window) / len(window) for phase in PHASES]
        uneven[at] = 100 * (max(means) - min(means)) / max(means)
    worst = min(uneven, key=lambda at: (-uneven[at], at))
    yield "r11_head_current_unbalance", "LV-HEAD, 15-minute windows: mean currents, 100 * (Imax - Imin) / Imax", {
        "max_pct": to_9(uneven[worst]),
        "window_start_epoch": worst,
        "over_15pct": sum(value > 15 for value in uneven.values()),
        "windows": len(uneven),
    }
    considered = [row for row in uci if row["p_kw"] is not None and row["p_kw"] > 0.1]
    yield "r12_low_power_factor", "UCI-1: minutes with p_kw > 0.1, and of those p / sqrt(p^2 + q^2) < 0.9", {
        "considered": len(considered),
        "low": sum(
            row["p_kw"] / math.hypot(row["p_kw"], row["q_kvar"]) < 0.9 for row in considered if row["q_kvar"] is not None
        ),
    }
    yield "r13_flat_runs", "per meter: longest run of rows with equal p_kw, and its first ts; a null ends a run", {
        meter: run for meter, rows in meters.items() if (run := flat_run(rows))
    }
    over = runs(uci, lambda row: row["v_a"] is not None and row["v_a"] > 235.4)
    longest = max(over, key=len, default=[])
    yield "r14_longest_overvoltage_220", "UCI-1: longest run of consecutive minutes with v_a > 235.4", {
        "minutes": len(longest),
        "first_ts": longest[0]["ts"] if longest else None,
    }


def device_answers(series: dict, labels: dict):
    steps, scores, robust, found = {}, {}, {}, defaultdict(list)
    for (device, metric), rows in series.items():
        name = f"{device}|{metric}"
        times, values = np.array([row["us"] for row in rows]), np.array([row["value"] for row in rows])
        apart = np.diff(times) / 1e6
        steps[name] = {
            "rows": len(rows),
            "median_step_s": to_9(np.median(apart)),
            "gaps": int((apart > 1.5 * np.median(apart)).sum()),
            "duplicate_ts": int((apart == 0).sum()),
            "max_gap_s": to_9(apart.max()),
        }
        outliers = []
        if len(values) > 288:
            before = np.lib.stride_tricks.sliding_window_view(values, 288)[:-1]
            mean, deviation = before.mean(axis=1), before.std(axis=1, ddof=1)
            with np.errstate(divide="ignore", invalid="ignore"):
                is_off = (deviation > 1e-9) & (np.abs(values[288:] - mean) / deviation > 6)
            outliers = [rows[288 + at] for at in np.flatnonzero(is_off)]
        scores[name] = {"outliers": len(outliers), "first": [row["ts"] for row in outliers[:3]]}
        found[device] += [row["us"] for row in outliers]
        distance = np.abs(values - np.median(values))
        mad = np.median(distance)
        robust[name] = int((distance / (1.4826 * mad) > 8).sum()) if mad > 0 else None
    against = {}
    for device in found:
        if device.startswith("nab/"):
            instants = [[datetime.fromisoformat(at.replace("Z", "+00:00")) for at in ends] for ends in labels.get(device, [])]
            ends = [[(at - EPOCH) // timedelta(microseconds=1) for at in pair] for pair in instants]
            against[device] = {
                "windows": len(ends),
                "windows_hit": sum(any(a <= us <= b for us in found[device]) for a, b in ends),
                "outliers_outside": sum(not any(a <= us <= b for a, b in ends) for us in found[device]),
            }
    yield "d01_series", "per device|metric: rows, median step, steps > 1.5 * median, steps of 0, largest step", steps
    yield "d02_zscore", "per device|metric: values > 6 sample standard deviations off the mean of the 288 before", scores
    yield "d03_zscore_vs_labels", "NAB devices: labelled windows, those with an outlier of d02, outliers in none", against
    yield "d04_mad", "per device|metric: |value - median| / (1.4826 * MAD) > 8; null when MAD is 0", robust


def process_answers(cases: dict, steps: list[dict], transitions: list[dict]):
    kind = {(step["process_type"], step["step"]): step["kind"] for step in steps}
    known = {step["process_type"] for step in steps}  # other processes are not judged
    required = [(step["process_type"], step["step"]) for step in steps if step["required"] == "true"]
    allowed = {(way["process_type"], way["from_step"], way["to_step"]) for way in transitions}
    within = 180 * 86_400_000_000
    ends = ("last", "aborted")
    counts, spans, until_end = defaultdict(Counter), defaultdict(list), defaultdict(list)
    activities, ways, moves, with_move = defaultdict(set), defaultdict(set), defaultdict(Counter), defaultdict(set)
    repeats, with_repeat, lacks, early, open_cases = Counter(), defaultdict(set), Counter(), Counter(), Counter()
    unapproved, unapproved_cases = 0, set()
    for (log, case), events in cases.items():
        did = [event["activity"] for event in events]
        counts[log].update(events=len(events), cases=1)
        activities[log].update(did)
        ways[log].add(tuple(event["activity"] for event in sorted(events, key=lambda event: event["seq"])))
        spans[log].append(events[-1]["us"] - events[0]["us"])
        for a, b in zip(events, events[1:]):
            if a["activity"] == b["activity"]:
                repeats[log] += 1
                with_repeat[log].add(case)
        if log not in known:
            continue
        ended = [event["us"] for event in events if kind.get((log, event["activity"])) in ends]
        if ended:
            until_end[log].append(ended[0] - events[0]["us"])
        if kind.get((log, did[-1])) not in ends:
            open_cases[log, did[-1]] += 1
        for a, b in zip(events, events[1:]):
            if b["us"] - a["us"] <= within and (log, a["activity"], b["activity"]) not in allowed:
                is_end = kind.get((log, a["activity"])) in ends
                is_known = (log, b["activity"]) in kind
                moves[log]["not_allowed" if is_known and not is_end else "after_end" if is_known else "unknown_step"] += 1
                with_move[log].add(case)
        missing, without = set(), set()
        for event in events:
            near = {e["activity"] for e in events if event["us"] - within <= e["us"] <= event["us"]}
            of = (log, event["activity"])
            if kind.get(of) == "last":
                missing |= {step for process, step in required if process == log and step not in near}
            leads = {a for process, a, b in allowed if (process, b) == of and a != b}
            if kind.get(of, "first") != "first" and not leads & near:
                without.add(event["activity"])
        lacks.update((log, step) for step in missing)
        early.update((log, step) for step in without)
        if log == "domestic":
            begun = None
            for event in events:
                if event["activity"] == "Declaration SUBMITTED by EMPLOYEE" and begun is None:
                    begun = event["us"]
                elif event["activity"] == "Payment Handled":
                    if begun is not None:
                        unapproved, unapproved_cases = unapproved + 1, unapproved_cases | {case}
                    begun = None
                elif event["activity"] == "Declaration FINAL_APPROVED by SUPERVISOR":
                    begun = None

    def nested(counter: Counter) -> dict:
        answer = defaultdict(dict)
        for (log, step), number in counter.items():
            answer[log][step] = number
        return answer

    yield "t01_counts", "per log: events, cases, distinct activities, distinct sequences of activities", {
        log: {**counts[log], "activities": len(activities[log]), "variants": len(ways[log])} for log in counts
    }
    yield "t05_throughput_s", "per log: seconds from the first to the last event of a case: percentiles (linear) and max", {
        log: {**{f"p{p}": percentile_s(us, p) for p in (50, 95, 99)}, "max": percentile_s(us, 100)} for log, us in spans.items()
    }
    yield "c01_illegal_transitions", (
        "per log with a table of steps: consecutive events of a case, at most 180 days apart, that the table of transitions does not list: "
        "to a step that is not in the table of steps, after an end of the process, other; and the cases with one"
    ), {
        log: {
            "transitions": moves[log].total(),
            **{reason: moves[log][reason] for reason in ("not_allowed", "after_end", "unknown_step")},
            "cases": len(with_move[log]),
        }
        for log in counts
        if log in known
    }
    yield "c02_missing_steps", "per log and required step: cases that reached a last step without it in the 180 days before", nested(lacks)
    yield "c03_steps_without_predecessor", (
        "per log and step: cases in which it came without any of the steps that lead to it in the 180 days before"
    ), nested(early)
    yield "c04_unfinished_cases", "per log with a table of steps, and step: cases whose last event is that step, which ends nothing", nested(open_cases)
    yield "c05_rework", "per log: events with the activity of the event before, and the cases with one", {
        log: {"repeats": repeats[log], "cases": len(with_repeat[log])} for log in counts
    }
    yield "c06_time_to_end", "per log with a table of steps: cases that reached an end, seconds from their first event to it", {
        log: {
            "ended": len(us),
            "median_s": percentile_s(us, 50) if us else None,
            "max_s": percentile_s(us, 100) if us else None,
        }
        for log in counts
        if log in known
        for us in [until_end[log]]
    }
    yield "c07_payment_without_approval", "domestic: payments after a submission without a final approval between, and their cases", {
        "payments": unapproved,
        "cases": len(unapproved_cases),
    }


def main() -> None:
    data, reference = Path(sys.argv[1]), Path(sys.argv[2])

    def table(path: Path) -> list[dict]:
        with open(path, newline="") as file:
            return list(csv.DictReader(file))

    meters, scenario = (by(lines(data / f"{name}.ndjson.gz"), "meter_id") for name in ("readings", "readings_scenario"))
    found = list(readings_answers(meters, {row["meter_id"]: row for row in table(data / "meters.csv")}))
    for prefix, of, nominals, worst in (("r0{}", meters, (220, 230, 240), "worst_rate"), ("s0{}_scenario", scenario, (220, 230), "worst")):
        at = (2, 3) if of is meters else (1, 2)
        for nominal in nominals:
            beyond = f"> {nominal} * 1.07 or < {nominal} * 0.90 (equal is inside)"
            found.append((
                f"{prefix.format(at[0])}_voltage_windows_{nominal}",
                f"per meter and phase: 10-minute windows with a voltage; those whose mean, to 6 decimals, is {beyond}",
                voltage_windows(of, nominal),
            ))
            name = "voltage_qualification" if of is meters else "qualification"
            found.append((
                f"{prefix.format(at[1])}_{name}_{nominal}",
                f"per meter: voltages of all phases; those {beyond}; share of the others. Worst: lowest share, then first meter_id",
                voltage_qualification(of, nominal, worst),
            ))
    definition = (
        "points with angles: highest minute of 100 * max|V - mean| / mean and of |V2| / |V1| in per cent; 95th percentile (linear) "
        "of the 10-minute root mean squares of the latter, and those over 2"
    )
    found += [("r10_unbalance", definition, unbalance(meters)), ("s03_scenario_unbalance", definition, unbalance(scenario))]
    found += device_answers(
        by(lines(data / "device_metrics.ndjson.gz"), "device_id", "metric"), json.loads((data / "device_labels.json").read_text())
    )
    found += process_answers(
        by(lines(data / "transactions.ndjson.gz"), "log", "case_id"),
        table(reference / "workflow_steps.csv"),
        table(reference / "workflow_transitions.csv"),
    )
    answers = {name: {"definition": says, "answer": answer} for name, says, answer in sorted(found, key=lambda entry: entry[0])}
    json.dump(answers, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
