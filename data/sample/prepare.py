#!/usr/bin/env python3
"""Builds this folder from the source pack: `python3 prepare.py <source folder>`.

The event files stay byte for byte what their sources published, line by line; only whole series are left out
(see README.md for which and why). Reference tables and the invented bills are written here, so that every value
that is ours and not a source's stands in one file. Output is reproducible: fixed order, gzip without a time stamp.
"""

import csv
import gzip
import io
import json
import shutil
import sys
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

HERE = Path(__file__).resolve().parent

# Limits are our choice: none of the sources publishes any.
DEVICE_LIMITS = [
    ("nab/ambient_temperature_system_failure", "value", "60", "80", "degF"),
    ("nab/ec2_cpu_utilization_24ae8d", "value", "", "90", "%"),
    ("nab/ec2_cpu_utilization_5f5533", "value", "", "60", "%"),
    ("nab/ec2_cpu_utilization_825cc2", "value", "60", "", "%"),
    ("nab/ec2_cpu_utilization_c6585a", "value", "", "90", "%"),
    ("nab/rds_cpu_utilization_e47b3b", "value", "", "60", "%"),
    ("nab/ec2_request_latency_system_failure", "value", "", "70", "ms"),
    ("nab/elb_request_count_8c0756", "value", "", "500", "1"),
]
STEP_S = {"nab/ambient_temperature_system_failure": 3600}
TARIFF_TIERS = [(Decimal(210), Decimal("0.5469")), (Decimal(400), Decimal("0.5969")), (None, Decimal("0.8469"))]
CENT = Decimal("0.01")


def write_gz(path, lines):
    """Writes lines to a gzip file whose bytes depend on nothing but the lines."""
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, 0) as out:
        out.writelines(lines)


def keep_lines(source, target, field, wanted):
    """Copies the lines whose `field` satisfies `wanted`, unchanged; returns the values kept, in order of appearance."""
    kept, values = [], {}
    with gzip.open(source, "rb") as lines:
        for line in lines:
            value = json.loads(line)[field]
            if wanted(value):
                kept.append(line)
                values[value] = None
    write_gz(target, kept)
    return list(values)


def write_csv(path, header, rows):
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(header)
    out.writerows(rows)
    path.write_text(text.getvalue())


def write_meters(source):
    """Meters of both days; the nominal voltage is the published load rating (230 V), also where a monitor has none."""
    with (source / "meters.csv").open(newline="") as file:
        rows = [
            (
                m["meter_id"], m["customer_id"], m["phase"], m["transformer"], m["feeder"], m["kind"], m["rated_v"], 230,
                "2006-12-01T00:00:00Z" if m["meter_id"].startswith("UCI") else "2026-01-01T00:00:00Z", "",
            )
            for m in csv.DictReader(file)
        ]
    header = "meter_id customer_id phases transformer feeder kind rated_v nominal_v valid_from valid_to".split()
    write_csv(HERE / "reference" / "meters.csv", header, rows)


def write_devices(device_ids):
    since = "2013-01-01T00:00:00Z"
    write_csv(
        HERE / "reference" / "devices.csv",
        "device_id device_type step_s valid_from valid_to".split(),
        [(d, "server", STEP_S.get(d, 300), since, "") for d in sorted(device_ids)],
    )
    write_csv(
        HERE / "reference" / "device_limits.csv",
        "device_id metric_name limit_low limit_high unit valid_from valid_to".split(),
        [(*row, since, "") for row in DEVICE_LIMITS],
    )


def write_tariffs():
    (tier1, price1), (tier2, price2), (_, price3) = TARIFF_TIERS
    write_csv(
        HERE / "reference" / "tariffs.csv",
        "tariff_id tier1_kwh tier2_kwh price1 price2 price3 valid_from valid_to".split(),
        [
            ("residential", tier1, tier2, "0.5283", "0.5783", "0.8283", "2020-01-01T00:00:00Z", "2025-12-31T16:00:00Z"),
            ("residential", tier1, tier2, price1, price2, price3, "2025-12-31T16:00:00Z", ""),
        ],
    )


def tiered_amount(kwh):
    """Monthly tiered price, rounded half up to a cent once, at the end."""
    amount, below = Decimal(0), Decimal(0)
    for upper, price in TARIFF_TIERS:
        amount += max(Decimal(0), (kwh if upper is None else min(kwh, upper)) - below) * price
        below = upper
    return amount.quantize(CENT, ROUND_HALF_UP)


def day_energy_kwh(source):
    """kWh of each customer of the modelled feeder on its one day."""
    sums = {}
    with gzip.open(source / "readings.ndjson.gz", "rt") as lines:
        for line in lines:
            if '"LV-LOAD' not in line:
                continue
            reading = json.loads(line, parse_float=Decimal, parse_int=Decimal)
            sums[reading["meter_id"]] = sums.get(reading["meter_id"], Decimal(0)) + reading["p_kw"]
    return {meter: total / 60 for meter, total in sums.items()}


def write_bills(source):
    """Invented bills: 31 times the modelled day, priced by tariffs.csv, with one wrong amount and one double payment."""
    rows = []
    for n, (meter, kwh) in enumerate(sorted(day_energy_kwh(source).items(), key=lambda item: int(item[0][7:]))):
        number = n + 1
        kwh = (kwh * 31).quantize(Decimal("0.0001"), ROUND_HALF_UP)
        amount = tiered_amount(kwh)
        bill = {
            "case_id": f"B-2026-03-{number:03}", "amount": amount, "customer_id": f"C-{meter[3:]}",
            "bill_id": f"B-2026-03-{number:03}", "bill_period": "2026-03", "tariff_id": "residential", "kwh": kwh,
        }
        issued = {"log": "billing", "activity": "bill_issued", "txn_id": f"T-{number:04}", "actor": "billing-run", **bill}
        if number == 17:
            issued["amount"] = amount - Decimal("2.51")
        rows.append((f"2026-04-01T09:{n:02}:00+08:00", 0, issued))
        paid = {"log": "payment", "activity": "payment_received", "actor": "bank", **bill, "amount": issued["amount"]}
        del paid["kwh"], paid["tariff_id"]
        times = [("2026-04-03", 1)] + ([("2026-04-04", 2)] if number == 23 else [])
        for day, seq in times:
            rows.append((f"{day}T10:{n:02}:00+08:00", seq, {**paid, "txn_id": f"T-{number:04}-{seq}", "payment_id": f"P-{number:04}-{seq}"}))
    rows.sort(key=lambda row: (row[0], row[1]))
    with (HERE / "bills.ndjson").open("w") as out:
        for ts, seq, row in rows:
            line = {"log": row.pop("log"), "case_id": row.pop("case_id"), "seq": seq, "activity": row.pop("activity"), "lifecycle": "complete", "ts": ts, **row}
            # Decimals leave as JSON numbers with their own digits, never through a float.
            texts = [f"{json.dumps(k)}:{v if isinstance(v, (Decimal, int)) else json.dumps(v)}" for k, v in line.items()]
            out.write("{" + ",".join(texts) + "}\n")


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: python3 prepare.py <source folder>")
    source = Path(sys.argv[1])
    (HERE / "reference").mkdir(exist_ok=True)
    for name in ("readings.ndjson.gz", "readings_scenario.ndjson.gz"):
        shutil.copyfile(source / name, HERE / name)
    device_ids = keep_lines(
        source / "device_metrics.ndjson.gz", HERE / "device_metrics.ndjson.gz", "device_id", lambda d: d.startswith(("nab/", "donut/"))
    )
    keep_lines(source / "transactions.ndjson.gz", HERE / "transactions.ndjson.gz", "log", lambda log: log == "domestic")
    write_meters(source)
    write_devices(device_ids)
    write_tariffs()
    write_bills(source)


if __name__ == "__main__":
    main()
