"""Runs reports in DuckDB, each in a database of its own: {"scripts": {name: SQL}} on stdin, {name: rows of the report} on stdout.

A script is lines that set and create something, then one query."""

import itertools
import json
import sys

import duckdb

answers = {}
for name, script in json.load(sys.stdin)["scripts"].items():
    lines = script.splitlines()
    before = list(itertools.takewhile(lambda line: line.startswith(("SET ", "CREATE VIEW ")), lines))
    query = "\n".join(lines[len(before):]).rstrip().rstrip(";")
    try:
        session = duckdb.connect()
        session.execute("\n".join(before))
        answers[name] = session.execute(f"SELECT count(*) FROM ({query}\n)").fetchone()[0]
    except duckdb.Error as error:
        sys.exit(f"{name}: {error}")
json.dump(answers, sys.stdout)
