//! Random queries over random events: streaming must equal batch for all of them, not only for the shapes we thought of.
//!
//! The streams have the columns that queries name in random types and places, with NaN and its like among the values of every
//! third. A case is one query. Some dozens are compiled together, so that they share states as rules of a job do, and run over the
//! same lanes: their number, the workers, the batches, the order of arrival and the moments of restore are random too.
//! `WATTLINE_RANDOM_CASES` runs more than the usual number, `WATTLINE_RANDOM_SEED` begins with another seed; a failure
//! names the seed of its set and the query.

use std::collections::BTreeMap;

use super::equivalence::{Cut, Lane, by_stream, run, sorted};
use super::fleet::{Fleet, Lcg, rule};
use crate::oracle;
use crate::test_run::text_rows;

/// Queries compiled together.
const QUERIES: u64 = 40;
const CASES: u64 = 2_000;

/// One random query, and what it is made of.
struct Query {
    sql: String,
    made_of: Vec<&'static str>,
}

/// Makes queries from pieces.
struct Maker<'a> {
    random: &'a mut Lcg,
    made_of: Vec<&'static str>,
}

impl Maker<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).expect("small")]
    }

    fn some_of<T: Copy>(&mut self, choices: &[T]) -> Vec<T> {
        let mut chosen: Vec<T> = choices.iter().copied().filter(|_| self.below(3) == 0).collect();
        if chosen.is_empty() {
            chosen.push(self.one_of(choices));
        }
        chosen
    }

    fn note(&mut self, piece: &'static str) {
        self.made_of.push(piece);
    }

    fn stream(&mut self) -> &'static str {
        self.one_of(&["meter_readings", "meter_readings", "other_readings"])
    }

    fn condition(&mut self, of: &str) -> String {
        let seq = self.below(6);
        let volts = 200 + self.below(40);
        let meter = self.below(5);
        let plain = match self.below(7) {
            0 => format!("{of}seq_no > {seq}"),
            1 => format!("{of}u_a_v < {volts}.5"),
            2 => format!("{of}u_a_v IS NOT NULL"),
            3 => format!("{of}meter_id <> 'M{meter}'"),
            4 => format!("{of}seq_no % 2 = {}", seq % 2),
            5 => format!("coalesce({of}seq_no, 9) > {seq}"),
            _ => format!("{of}energy_imp_kwh > {volts}0.25"),
        };
        match self.below(5) {
            0 => format!("NOT ({plain})"),
            1 => format!("({plain} OR {of}seq_no IS NULL)"),
            _ => plain,
        }
    }

    fn source(&mut self) -> String {
        let stream = self.stream();
        match self.below(9) {
            0 => format!("(SELECT * FROM {stream} WHERE {})", self.condition("")),
            2 => {
                self.note("of distinct");
                let columns = "ts, meter_id, seq_no, u_a_v, energy_imp_kwh";
                let (window, from) = self.one_of(&[
                    ("", "{}"),
                    (", window_start AS w", "TUMBLE({}, ts, INTERVAL '40 seconds')"),
                    (", window_end AS w", "HOP({}, ts, INTERVAL '25 seconds', INTERVAL '50 seconds')"),
                ]);
                let from = from.replace("{}", stream);
                format!("(SELECT DISTINCT {columns}{window} FROM {from})")
            }
            3 => {
                self.note("of top");
                let edge = self.one_of(&["window_start", "window_end"]);
                let columns = "ts, meter_id, seq_no, u_a_v, energy_imp_kwh";
                format!(
                    "(SELECT {columns} FROM TUMBLE({stream}, ts, INTERVAL '35 seconds')\n\
                     QUALIFY rank() OVER (PARTITION BY {edge} ORDER BY u_a_v DESC) <= 5)"
                )
            }
            1 => {
                self.note("union all");
                let other = self.stream();
                let (a, b) = (self.condition(""), self.condition(""));
                let columns = "ts, meter_id, seq_no, u_a_v, energy_imp_kwh";
                format!("(SELECT {columns} FROM {stream} WHERE {a} UNION ALL SELECT {columns} FROM {other} WHERE {b})")
            }
            _ => stream.to_owned(),
        }
    }

    fn window(&mut self, source: &str) -> String {
        let seconds = self.one_of(&[20, 45, 60, 100, 300]);
        match self.below(6) {
            0 => {
                self.note("hop");
                let slide = self.one_of(&[10, 15, 40, 60, 130]);
                format!("HOP({source}, ts, INTERVAL '{slide} seconds', INTERVAL '{seconds} seconds')")
            }
            1 => {
                self.note("cumulate");
                let steps = 1 + self.below(4);
                let size = 20 * steps;
                format!("CUMULATE({source}, ts, INTERVAL '20 seconds', INTERVAL '{size} seconds')")
            }
            2 => {
                self.note("session");
                let keys = self.one_of(&["", ", meter_id", ", meter_id, seq_no"]);
                let gap = self.one_of(&[1, 3, 8, 20]);
                format!("SESSION({source}, ts, INTERVAL '{gap} seconds'{keys})")
            }
            3 => {
                self.note("local days");
                let zone = self.one_of(&["UTC", "Asia/Kolkata", "America/New_York"]);
                format!("TUMBLE({source}, ts, INTERVAL '1 day', '{zone}')")
            }
            _ => {
                self.note("tumble");
                let origin = self.one_of(&["", ", TIMESTAMP '1970-01-01T00:00:07Z'"]);
                format!("TUMBLE({source}, ts, INTERVAL '{seconds} seconds'{origin})")
            }
        }
    }

    fn aggregates(&mut self) -> String {
        const FREE: [&str; 11] = [
            "count(*)",
            "count(u_a_v)",
            "sum(seq_no)",
            "sum(energy_imp_kwh)",
            "min(u_a_v)",
            "max(u_a_v)",
            "max(ts)",
            "avg(energy_imp_kwh)",
            "count(DISTINCT seq_no)",
            "median(seq_no)",
            "bool_or(seq_no > 2)",
        ];
        const ORDERED: [&str; 3] =
            ["first_value(seq_no ORDER BY ts)", "last_value(u_a_v ORDER BY ts)", "array_agg(seq_no ORDER BY ts)"];
        let mut chosen = self.some_of(&FREE);
        if self.below(3) == 0 {
            self.note("ordered aggregate");
            chosen.push(self.one_of(&ORDERED));
        }
        let calls = chosen.into_iter().enumerate().map(|(at, call)| {
            let filter = match self.below(5) {
                0 => format!(" FILTER (WHERE {})", self.condition("")),
                _ => String::new(),
            };
            format!("{call}{filter} AS a{at}")
        });
        calls.collect::<Vec<_>>().join(", ")
    }

    fn filter(&mut self) -> String {
        match self.below(3) {
            0 => format!(" WHERE {}", self.condition("")),
            _ => String::new(),
        }
    }

    fn plain(&mut self) -> String {
        self.note("plain");
        let (source, condition) = (self.source(), self.condition(""));
        format!("SELECT ts, meter_id, seq_no + 1 AS next, u_a_v FROM {source} WHERE {condition}")
    }

    fn grouped(&mut self) -> String {
        let source = self.source();
        let window = self.window(&source);
        let aggregates = self.aggregates();
        let filter = self.filter();
        let keys = self.one_of(&["", "meter_id, ", "seq_no, ", "meter_id, seq_no, "]);
        let having = self.one_of(&["", "", " HAVING count(*) > 1"]);
        format!(
            "SELECT {keys}window_start, window_end, {aggregates} FROM {window}{filter}\nGROUP BY {keys}window_start, window_end{having}"
        )
    }

    fn windows_of_windows(&mut self) -> String {
        let stream = self.stream();
        if self.below(3) == 0 {
            self.note("windows grouped again");
            let inner = self.one_of(&[
                "TUMBLE({}, ts, INTERVAL '40 seconds')",
                "HOP({}, ts, INTERVAL '20 seconds', INTERVAL '1 minute')",
                "HOP({}, ts, INTERVAL '10 seconds', INTERVAL '2 minutes')",
                "CUMULATE({}, ts, INTERVAL '20 seconds', INTERVAL '80 seconds')",
            ]);
            let inner = inner.replace("{}", stream);
            let outer = self.one_of(&["window_start, window_end", "window_end", "window_start, window_end, n"]);
            return format!(
                "SELECT {outer}, sum(n) AS total, count(*) AS meters FROM (SELECT meter_id, window_start, window_end, count(*) AS n\n\
                 FROM {inner} GROUP BY meter_id, window_start, window_end) GROUP BY {outer}"
            );
        }
        self.note("window of windows");
        let outer = self.one_of(&[
            "TUMBLE(inner_windows, at, INTERVAL '4 minutes')",
            "HOP(inner_windows, at, INTERVAL '1 minute', INTERVAL '150 seconds')",
            "HOP(inner_windows, at, INTERVAL '20 seconds', INTERVAL '4 minutes')",
            "SESSION(inner_windows, at, INTERVAL '50 seconds')",
        ]);
        let edge = self.one_of(&["window_start", "window_end"]);
        let aggregates = self.one_of(&["sum(n) AS n", "max(n) AS most, count(*) AS windows", "min(top) AS low"]);
        format!(
            "WITH inner_windows AS (SELECT meter_id, {edge} AS at, count(*) AS n, max(seq_no) AS top\n\
             FROM TUMBLE({stream}, ts, INTERVAL '40 seconds') GROUP BY meter_id, {edge})\n\
             SELECT window_start, window_end, {aggregates} FROM {outer} GROUP BY window_start, window_end"
        )
    }

    fn function(&mut self) -> String {
        let rows = self.one_of(&["sum(seq_no)", "count(u_a_v)", "min(u_a_v)", "max(seq_no)", "avg(energy_imp_kwh)"]);
        let n = 1 + self.below(4);
        let seconds = self.one_of(&[1, 5, 30]);
        let partition = self.one_of(&["PARTITION BY meter_id ", "PARTITION BY meter_id, seq_no ", ""]);
        let over = |frame: &str| format!("OVER ({partition}ORDER BY ts{frame})");
        match self.below(9) {
            0 => {
                self.note("range frame");
                format!("{rows} {}", over(&format!(" RANGE INTERVAL '{seconds} seconds' PRECEDING")))
            }
            1 => {
                self.note("range frame ahead");
                let frame = format!(
                    " RANGE BETWEEN INTERVAL '{seconds} seconds' PRECEDING AND INTERVAL '{n} seconds' FOLLOWING"
                );
                format!("{rows} {}", over(&frame))
            }
            2 => {
                self.note("running range");
                format!("{rows} {}", over(""))
            }
            3 => {
                self.note("rank");
                format!("rank() {}", over(""))
            }
            4 => {
                self.note("dense_rank");
                format!("dense_rank() {}", over(""))
            }
            5 => {
                self.note("rows frame");
                format!("{rows} {}", over(&format!(" ROWS {n} PRECEDING")))
            }
            6 => {
                self.note("running rows");
                format!("{rows} {}", over(" ROWS UNBOUNDED PRECEDING"))
            }
            7 => {
                self.note("row_number");
                format!("row_number() {}", over(""))
            }
            _ => {
                self.note("lag");
                format!("lag(seq_no, {n}) {}", over(""))
            }
        }
    }

    fn over(&mut self) -> String {
        let source = self.source();
        let count = 1 + self.below(3);
        let functions: Vec<String> = (0..count).map(|at| format!("{} AS f{at}", self.function())).collect();
        let filter = self.filter();
        format!("SELECT ts, meter_id, seq_no, {} FROM {source}{filter}", functions.join(", "))
    }

    fn top(&mut self) -> String {
        self.note("top of window");
        let stream = self.stream();
        let window = self.window(stream);
        let places = 1 + self.below(3);
        let direction = self.one_of(&["", " DESC"]);
        format!(
            "SELECT ts, meter_id, seq_no, window_end, row_number() OVER (PARTITION BY window_end ORDER BY seq_no{direction}, ts) AS place\n\
             FROM {window} QUALIFY place <= {places}"
        )
    }

    fn distinct(&mut self) -> String {
        self.note("distinct");
        let source = self.source();
        let window = self.window(&source);
        let column = self.one_of(&["meter_id", "seq_no", "u_a_v > 220 AS high"]);
        format!("SELECT DISTINCT window_start, window_end, {column} FROM {window}")
    }

    fn join(&mut self) -> String {
        let (a, b) = (self.stream(), self.stream());
        let (before, after) = (self.below(8), self.below(8));
        let bound = format!("b.ts BETWEEN a.ts - INTERVAL '{before} seconds' AND a.ts + INTERVAL '{after} seconds'");
        let keys = self.one_of(&["a.meter_id = b.meter_id", "a.meter_id = b.meter_id AND a.seq_no = b.seq_no"]);
        let residual = self.one_of(&["", " AND a.u_a_v > b.u_a_v", " AND b.seq_no > 2"]);
        let filter = format!("{} AND {}", self.condition("a."), self.condition("a."));
        match self.below(6) {
            0 => {
                self.note("exists");
                format!(
                    "SELECT a.ts, a.meter_id, a.seq_no FROM {a} a WHERE {filter} AND EXISTS (SELECT 1 FROM {b} b WHERE {keys} AND {bound}{residual})"
                )
            }
            1 => {
                self.note("not exists");
                format!(
                    "SELECT a.ts, a.meter_id, a.seq_no FROM {a} a WHERE {filter} AND NOT EXISTS (SELECT 1 FROM {b} b WHERE {keys} AND {bound}{residual})"
                )
            }
            kind => {
                let kinds = [("", "inner join"), ("LEFT", "left join"), ("RIGHT", "right join"), ("FULL", "full join")];
                let (kind, piece) = kinds[usize::try_from(kind - 2).expect("small")];
                self.note(piece);
                let columns = "coalesce(a.ts, b.ts) AS at, a.ts AS a_ts, a.meter_id, a.seq_no, b.ts AS b_ts, b.meter_id AS b_meter, b.seq_no AS b_seq";
                format!("SELECT {columns} FROM {a} a {kind} JOIN {b} b ON {keys} AND {bound}{residual}")
            }
        }
    }

    fn window_of(&mut self) -> String {
        self.note("window of rows");
        let rows = match self.below(2) {
            0 => {
                let function = self.function();
                let stream = self.stream();
                format!("SELECT ts, meter_id, {function} AS x FROM {stream}")
            }
            _ => {
                self.note("inner join");
                let after = 1 + self.below(9);
                format!(
                    "SELECT a.ts, a.meter_id, b.seq_no AS x FROM meter_readings a JOIN other_readings b\n\
                     ON a.meter_id = b.meter_id AND b.ts >= a.ts AND b.ts < a.ts + INTERVAL '{after} seconds'"
                )
            }
        };
        let seconds = self.one_of(&[30, 60, 200]);
        format!(
            "SELECT window_start, window_end, count(*) AS n, count(x) AS known, max(x) AS top\n\
             FROM TUMBLE(({rows}), ts, INTERVAL '{seconds} seconds') GROUP BY window_start, window_end"
        )
    }

    /// What the row of a symbol is like; `bounded`: and how far from the first row of the match.
    fn symbol(&mut self, symbol: &str, bounded: bool, seconds: &[u64]) -> String {
        let is = match self.below(5) {
            0 => format!("{symbol}.u_a_v > prev({symbol}.u_a_v)"),
            1 => format!("{symbol}.seq_no <> first(seq_no) OR {symbol}.seq_no IS NULL"),
            2 => "count(*) < 5".to_owned(),
            _ => self.condition(""),
        };
        let seconds = self.one_of(seconds);
        let bound = self
            .one_of(&[
                format!("{symbol}.ts <= first(ts) + INTERVAL '{seconds} seconds'").as_str(),
                format!("{symbol}.ts - first(ts) < INTERVAL '{seconds} seconds'").as_str(),
            ])
            .to_owned();
        if bounded { format!("{symbol} AS ({is}) AND {bound}") } else { format!("{symbol} AS {is}") }
    }

    fn pattern(&mut self) -> String {
        let (pattern, skips): (&str, &[&str]) = self.one_of(&[
            ("a b+", &["PAST LAST ROW", "TO NEXT ROW", "TO FIRST b", "TO LAST b"]),
            ("a b*? c", &["PAST LAST ROW", "TO NEXT ROW", "TO LAST c"]),
            ("a (b | c){1,3}", &["PAST LAST ROW", "TO NEXT ROW"]),
            ("a{1,2} b?", &["PAST LAST ROW", "TO NEXT ROW"]),
            ("PERMUTE(a, b)", &["PAST LAST ROW", "TO NEXT ROW"]),
            ("(a | b)+ c", &["PAST LAST ROW", "TO NEXT ROW", "TO LAST c"]),
            ("a ({- b -}) c{,2}", &["PAST LAST ROW", "TO NEXT ROW"]),
        ]);
        let skip = self.one_of(skips);
        let used = ["a", "b", "c"].into_iter().filter(|symbol| pattern.contains(symbol));
        let partition = self.one_of(&["PARTITION BY meter_id ", "PARTITION BY meter_id ", ""]);
        // The ways to match some patterns are many: not too many rows at once.
        let seconds: &[u64] = if partition.is_empty() { &[2, 4] } else { &[3, 20] };
        let defines: Vec<String> =
            used.map(|symbol| self.symbol(symbol, symbol != "a" || pattern != "a b+", seconds)).collect();
        let measures = "first(ts) AS began, last(ts) AS ended, classifier() AS part, count(*) AS n, max(a.seq_no) AS highest, \
                        last(a.u_a_v) AS a_v, first(seq_no, 1) AS second, match_number() AS number";
        let rows = match self.below(3) {
            0 => {
                self.note("pattern of all rows");
                "ALL ROWS PER MATCH WITH UNMATCHED ROWS"
            }
            1 => {
                self.note("pattern of all rows");
                "ALL ROWS PER MATCH"
            }
            _ => {
                self.note("pattern");
                "ONE ROW PER MATCH"
            }
        };
        let stream = self.stream();
        let columns = match (rows, partition) {
            ("ONE ROW PER MATCH", "") => "",
            ("ONE ROW PER MATCH", _) => "meter_id, ",
            _ => "meter_id, ts, seq_no, ",
        };
        let select = format!(
            "SELECT {columns}began, ended, part, n, highest, a_v, second, number FROM {stream} MATCH_RECOGNIZE ({partition}ORDER BY ts\n\
             MEASURES {measures} {rows} AFTER MATCH SKIP {skip}\n\
             PATTERN ({pattern}) DEFINE {})",
            defines.join(", ")
        );
        if rows == "ONE ROW PER MATCH" && self.below(3) == 0 {
            self.note("window of patterns");
            return format!(
                "WITH matches AS ({select})\n\
                 SELECT window_start, count(*) AS found, max(n) AS longest FROM TUMBLE(matches, began, INTERVAL '1 minute') GROUP BY window_start"
            );
        }
        select
    }

    fn query(random: &mut Lcg) -> Query {
        let mut maker = Maker { random, made_of: Vec::new() };
        let sql = match maker.below(14) {
            0 => maker.plain(),
            1..=3 => maker.grouped(),
            4 => maker.windows_of_windows(),
            5 | 6 => maker.over(),
            7 => maker.top(),
            8 => maker.distinct(),
            9 | 10 => maker.join(),
            11 | 12 => maker.pattern(),
            _ => maker.window_of(),
        };
        Query { sql, made_of: maker.made_of }
    }
}

/// Runs one set of queries; returns the cases with rows by what they are made of.
fn run_set(seed: u64, coverage: &mut BTreeMap<&'static str, u64>) -> u64 {
    let mut random = Lcg(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    random.below(2);
    let queries: Vec<Query> = (0..QUERIES).map(|_| Maker::query(&mut random)).collect();
    let files: Vec<_> = queries
        .iter()
        .enumerate()
        .map(|(at, query)| {
            let delay = ["0 s", "30 s", "2 minutes"][usize::try_from(random.below(3)).expect("small")];
            rule(&format!("q{at:02}"), &format!("kind = \"table\"\ndelay = \"{delay}\""), &query.sql)
        })
        .collect();
    let fleet = if random.below(3) == 0 { Fleet::plain() } else { Fleet::random(&mut random) };
    let set = fleet.compile(&files);
    let mut lanes = Vec::new();
    for stream in ["meter_readings", "other_readings"] {
        for partition in 0..i32::try_from(1 + random.below(4)).expect("small") {
            lanes.push(Lane { stream, rows: fleet.lane(partition, 90, &mut random) });
        }
    }
    let streams = by_stream(&lanes);
    let batch_max = [1, 7, 8_192][usize::try_from(random.below(3)).expect("small")];
    let workers = [1, 4][usize::try_from(random.below(2)).expect("small")];
    let [restore, spill] = [2, 5].map(|of| random.below(of) == 0);
    let memory = spill.then_some(16 << 10);
    let got = run(&set, &lanes, &Cut { workers, batch_max, restore, memory }, &mut random);
    let mut with_rows = 0;
    for (compiled, got) in set.rules().iter().zip(got) {
        let query = &queries[compiled.header.id[1..].parse::<usize>().expect("a number")];
        let batch = oracle::run_rule_blocking(&set, &compiled.header.id, &streams);
        let batch = batch.unwrap_or_else(|error| panic!("seed {seed}: {}\n{error}", query.sql));
        let expected = sorted(text_rows(&batch).expect("printable"));
        assert_eq!(sorted(got), expected, "seed {seed}, {workers} workers, batches up to {batch_max}:\n{}", query.sql);
        if !expected.is_empty() {
            with_rows += 1;
            query.made_of.iter().for_each(|piece| *coverage.entry(piece).or_default() += 1);
        }
    }
    with_rows
}

#[expect(clippy::disallowed_methods, reason = "a longer run of this test is asked for from outside")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn random_queries_give_the_same_rows_as_batch() {
    let (wanted, first) =
        (setting("WATTLINE_RANDOM_CASES").unwrap_or(CASES), setting("WATTLINE_RANDOM_SEED").unwrap_or(1));
    let mut coverage = BTreeMap::new();
    let (mut cases, mut seed) = (0, first);
    while cases < wanted {
        cases += run_set(seed, &mut coverage);
        seed += 1;
    }
    println!("{cases} cases with rows, seeds {first} to {}: {coverage:?}", seed - 1);
    let pieces = [
        "tumble",
        "hop",
        "cumulate",
        "session",
        "local days",
        "lag",
        "rows frame",
        "not exists",
        "full join",
        "pattern",
    ];
    for piece in pieces {
        let enough = coverage.get(piece).is_some_and(|count| *count >= cases / 200);
        assert!(enough, "`{piece}` hardly ever came: {coverage:?}");
    }
}
