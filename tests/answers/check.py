"""Answers the questions of a job with wattline and compares them with what is expected.

    check.py <wattline> <job folder> [<expected.json>] [--keep] [--replay]

The job folder holds wattline.toml, data/ and questions/<id>.sql; the expected answers are `{id: {"answer": …}}`, by
default those of expected.json in the job folder. The job is run afresh to the end of its input, unless `--keep` takes the archive that is
there. `--replay` also computes the tables of all rules from the raw events of the archive, as plain SQL, and compares
them with what the stream gave, row by row. Exit status: 0 all answers are equal, 1 some are not, 2 a command failed.

A query says the shape of its answer by the names of its columns:

- Columns `key`, `key_2`, … are the names of nested objects; what is in the others is the object within. A single other
  column called `value` is not an object but the value itself.
- Without a column `key` the answer is the one row, as an object.
- Lists, structs and maps stand as they are.

Numbers are compared as JSON has them: equal is equal, there is no tolerance.
"""

import csv
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from string import Template


def wattline(program: str, job: Path, *arguments: str) -> str:
    done = subprocess.run([program, *arguments], cwd=job, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"wattline {arguments[0]}: {done.stderr.strip()}", file=sys.stderr)
        sys.exit(2)
    return done.stdout


def write_anomaly_windows(data: Path) -> None:
    """Labels are windows by device in a JSON file; a reference table is a CSV file. Other labels are left out."""
    labels = json.loads((data / "device_labels.json").read_text())
    with open(data / "anomaly_windows.csv", "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["device_id", "begins", "ends"])
        for device, windows in sorted(labels.items()):
            rows.writerows([device, *window] for window in windows if isinstance(window, list))


def shape(rows: list[dict]) -> object:
    if not all("key" in row for row in rows):
        if len(rows) != 1:
            raise ValueError(f"{len(rows)} rows without a column `key`")
        return rows[0]
    answer: dict = {}
    for row in rows:
        keys = [row.pop(name) for name in sorted(name for name in row if name == "key" or name.startswith("key_"))]
        within = answer
        for key in keys[:-1]:
            within = within.setdefault(key, {})
        if keys[-1] in within:
            raise ValueError(f"{keys} comes twice")
        within[keys[-1]] = row["value"] if list(row) == ["value"] else row
    return answer


def query_of(questions: Path, question: str) -> str | None:
    """Questions that differ by a stream or a voltage share a query: shared.json says which, and the values of its `$names`."""
    values = json.loads((questions / "shared.json").read_text()).get(question, {"query": question})
    path = questions / f"{values['query']}.sql"
    return Template(path.read_text()).substitute(values) if path.exists() else None


def differences(got: object, expected: object, path: str = "") -> list[str]:
    if isinstance(got, dict) and isinstance(expected, dict):
        found = [f"{path}/{name}: is missing" for name in expected if name not in got]
        found += [f"{path}/{name}: is not expected" for name in got if name not in expected]
        common = [name for name in expected if name in got]
        return found + [each for name in common for each in differences(got[name], expected[name], f"{path}/{name}")]
    is_same = got == expected and isinstance(got, bool) == isinstance(expected, bool)
    return [] if is_same else [f"{path or 'answer'}: {json.dumps(got)}, expected {json.dumps(expected)}"]


def replay(program: str, job: Path) -> int:
    """Number of rules whose table is not what its query gives over the same events at once."""

    def rows(*arguments: str) -> Counter:
        parsed = [json.loads(line) for line in wattline(program, job, *arguments).splitlines()]
        return Counter(json.dumps({name: row[name] for name in row if name != "event_date"}) for row in parsed)

    wrong = 0
    for rule in json.loads(wattline(program, job, "rules", "list", "--format", "json")):
        if rule["kind"] == "table":
            stream = rows("query", "--format", "json", f"SELECT * FROM {rule['id']}")
            batch = rows("replay", "--format", "json", rule["id"])
            wrong += stream != batch
            verdict = "ok" if stream == batch else f"{(stream - batch).total()} rows of the stream, {(batch - stream).total()} of the replay"
            print(f"rule {rule['id']}, {stream.total()} rows: {verdict}")
    return wrong


def main() -> int:
    arguments = [argument for argument in sys.argv[1:] if argument not in ("--keep", "--replay")]
    if not 2 <= len(arguments) <= 3:
        print(__doc__, file=sys.stderr)
        return 2
    program, job = str(Path(arguments[0]).resolve()), Path(arguments[1]).resolve()
    expected = json.loads(Path(arguments[2] if len(arguments) == 3 else job / "expected.json").read_text())
    if "--keep" not in sys.argv:
        shutil.rmtree(job / "archive", ignore_errors=True)
        write_anomaly_windows(job / "data")
        wattline(program, job, "run", "--until-end")
    wrong = 0
    for question, entry in expected.items():
        query = query_of(job / "questions", question)
        if query is None:
            found = ["there is no query"]
        else:
            output = wattline(program, job, "query", "--format", "json", "--", query)
            found = differences(shape([json.loads(line) for line in output.splitlines()]), entry["answer"])
        wrong += bool(found)
        print(f"{question}: {'ok' if not found else f'{len(found)} differences'}")
        for difference in found[:5]:
            print(f"  {difference:.300}")
    print(f"{len(expected) - wrong} of {len(expected)} answers are equal")
    wrong += replay(program, job) if "--replay" in sys.argv else 0
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
