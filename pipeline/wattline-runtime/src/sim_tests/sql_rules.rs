//! The rules of the simulation as SQL, compiled by `wattline-sql` and run by the adapters of the program.
//!
//! Each says what the rule of its name in [`rules`] says, in a table with the same columns, so one oracle judges both. Where these rules
//! fail, those take a text for a number that says why: the message quotes it. A column of a rule may not be called as a system column:
//! `_offset` comes out as `its_offset`, and has its name again when it is read ([`with_system_names`]).
//!
//! `big`, `spike` and `every` are final at once, `heavy` and `tidied` have a state of their own, `running` and `mended` share that of
//! `sums`, and `running` keeps totals by key over its windows. The rules that come later have others in their place before, which give
//! one column more: by that they are other rules, though they keep the same.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema};
use wattline_core::exchange::Place;
use wattline_sql::{Catalog, RuleFile, RuleSet, Stream};

use super::rules::{
    self, BEFORE, BIG_ABOVE, BREAKS_AT, BROKEN, DELAYS_MS, EVERY, HEAVY, HEAVY_ABOVE, LifeRules, SPIKE_ABOVE, SUMS,
    SYSTEM_WINDOW_US, TIDIED, WINDOW_US,
};
use super::tally::{Mishap, Tally};
use crate::error::Result;
use crate::port::{Deltas, FinalOutput, FinalProgram, Reloaded, StageState, StageStates, StateDelta};
use crate::stream_schema;
use crate::table::{SystemStream, system_streams};

#[path = "../../../wattline/src/adapt/plans.rs"]
mod plans;
#[path = "../../../wattline/src/adapt/program.rs"]
mod program;

use program::{Lanes, Merged};

/// What stands before the name of a system column that a rule gives.
const ITS: &str = "its";
/// As [`rules::LATE_COMERS`], by name.
const LATE_COMERS: [&str; 7] = ["big", "spike", "heavy", "running", "mended", "every", "tidied"];
/// What a rule that is run again may have of the memory of all.
const SINGLE_RULE_SHARE: usize = 4;

/// Which rules there are.
#[derive(Debug, Clone, Copy)]
enum Edition {
    /// All, from the first process on.
    Whole,
    /// Others are in the place of those that come later.
    Before,
    /// They have come, and are given their past.
    After,
}

/// Compiled once: programs are made of it.
fn compiled(edition: Edition) -> &'static RuleSet {
    static SETS: [OnceLock<RuleSet>; 3] = [const { OnceLock::new() }; 3];
    SETS[edition as usize].get_or_init(|| {
        RuleSet::compile(&catalog(), &files(edition)).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"))
    })
}

fn stream_names() -> Arc<[String]> {
    std::iter::once("readings").chain(system_streams().map(|stream| stream.name)).map(str::to_owned).collect()
}

fn catalog() -> Catalog {
    let stream = |name: &str, event_time: &str, schema| Stream {
        name: name.to_owned(),
        schema: stream_schema(&schema),
        event_time: event_time.to_owned(),
        key: Vec::new(),
        delay_ms: 0,
    };
    let of_job = system_streams().map(|SystemStream { name, event_time, schema }| stream(name, event_time, schema));
    let mut catalog = Catalog::new();
    for stream in std::iter::once(stream("readings", "ts", rules::schema())).chain(of_job) {
        catalog.add_stream(stream).expect("a stream of its own name, with system columns");
    }
    catalog
}

fn files(edition: Edition) -> Vec<RuleFile> {
    let file = |(id, header, query): (&str, String, String)| {
        let is_late = LATE_COMERS.contains(&id);
        let (name, header, more) = match edition {
            Edition::Before if is_late => (format!("{BEFORE}{id}"), header, "TRUE AS is_earlier, "),
            Edition::After if is_late => (id.to_owned(), format!("{header}\nbackfill = \"1 day\""), ""),
            Edition::Whole | Edition::Before | Edition::After => (id.to_owned(), header, ""),
        };
        let text = format!("/*---\nid = \"{name}\"\n{header}\n---*/\nSELECT {more}{query}");
        RuleFile { path: format!("sim/{name}.sql"), text }
    };
    events().into_iter().chain(windows()).chain(system()).map(file).collect()
}

fn table(rule: usize) -> String {
    format!("kind = \"table\"\ndelay = \"{} ms\"", DELAYS_MS[rule])
}

fn alert(rule: usize, more: &str) -> String {
    format!("kind = \"alert\"\nentity = \"key\"\ndelay = \"{} ms\"\n{more}", DELAYS_MS[rule])
}

/// Rules over single events: id, header, and what follows the word `SELECT`.
fn events() -> [(&'static str, String, String); 3] {
    let identity = "_partition AS its_partition, _offset AS its_offset, _index AS its_index";
    let big =
        format!("ts, key, value, {identity}, _lateness_ms AS its_lateness_ms FROM readings WHERE value > {BIG_ABOVE}");
    let every = format!("ts, key, value, {identity} FROM readings WHERE value > {BIG_ABOVE}");
    let spike = format!("ts, key, value FROM readings WHERE value > {SPIKE_ABOVE}");
    [
        ("big", table(rules::BIG), big),
        ("every", format!("{}\nlate = \"update\"", table(EVERY)), every),
        ("spike", alert(rules::SPIKE, "delivery = \"low_latency\""), spike),
    ]
}

/// Rules over windows of readings.
fn windows() -> [(&'static str, String, String); 5] {
    let from = format!(
        "FROM TUMBLE(readings, ts, INTERVAL '{} seconds') GROUP BY window_start, window_end, key",
        WINDOW_US / 1_000_000
    );
    let totals = "window_start, window_end, key, sum(value) AS measured, count(*) AS count";
    let luck = "CAST(CASE WHEN sum(value) % 3 = 0 \
        THEN concat('the window of ', key, ' from ', CAST(window_start AS BIGINT), ' brings bad luck') \
        ELSE '1' END AS BIGINT) AS luck";
    let condition =
        format!("window_start, window_end, key, sum(value) > {HEAVY_ABOVE} AS firing, sum(value) AS measured {from}");
    let running = "window_start, window_end, key, sum(measured) OVER so_far AS measured, sum(count) OVER so_far AS count \
        FROM sums WINDOW so_far AS (PARTITION BY key ORDER BY window_end)";
    [
        ("sums", table(SUMS), format!("{totals}, {luck} {from}")),
        ("running", "kind = \"table\"".to_owned(), running.to_owned()),
        ("mended", format!("{}\nlate = \"update\"", table(rules::MENDED)), format!("{totals} {from}")),
        ("heavy", alert(HEAVY, "delivery = \"low_latency\""), condition.clone()),
        ("tidied", alert(TIDIED, "late = \"update\""), condition),
    ]
}

/// Rules over what the job says of itself.
fn system() -> [(&'static str, String, String); 4] {
    let counts = |key: &str, stream: &str, time: &str| {
        let width = format!("INTERVAL '{} milliseconds'", SYSTEM_WINDOW_US / 1_000);
        format!(
            "window_start, window_end, {key} AS key, count(*) AS measured, count(*) AS count \
             FROM TUMBLE({stream}, {time}, {width}) GROUP BY window_start, window_end, {key}"
        )
    };
    let letter = "refused_at, reason, _topic AS its_topic, _offset AS its_offset";
    // The message must not be a constant: the planner would take it for a number, for all rows.
    let broken = format!(
        "CAST(CASE WHEN _offset = {BREAKS_AT} THEN concat('{BROKEN}', substr(reason, 1, 0)) ELSE '1' END AS BIGINT)"
    );
    let header = || "kind = \"table\"".to_owned();
    [
        ("refusals", header(), counts("reason", "dead_letters", "refused_at")),
        ("letters", header(), format!("{letter} FROM dead_letters")),
        ("failures", header(), counts("rule_id", "rule_errors", "failed_at")),
        ("brittle", header(), format!("{letter}, {broken} AS whole FROM dead_letters")),
    ]
}

/// A batch whose columns are called as those of the system are.
pub(super) fn with_system_names(batch: RecordBatch) -> RecordBatch {
    let schema = batch.schema();
    let renamed = schema.fields().iter().map(|field| match field.name().strip_prefix(ITS) {
        Some(name) if name.starts_with('_') => Arc::new(Field::clone(field).with_name(name)),
        _ => Arc::clone(field),
    });
    let schema = Schema::new(renamed.collect::<Vec<_>>());
    RecordBatch::try_new(Arc::new(schema), batch.columns().to_vec()).expect("the same columns")
}

/// The rules as `wattline-sql` runs them. See [`rules::life_rules`].
pub(super) fn life_rules(
    workers: usize,
    place: Option<Place>,
    late_comers: Option<bool>,
    bytes: Option<usize>,
    tally: &Tally,
) -> LifeRules {
    let set = compiled(match late_comers {
        None => Edition::Whole,
        Some(false) => Edition::Before,
        Some(true) => Edition::After,
    });
    let (streams, tally) = (stream_names(), tally.clone());
    LifeRules {
        plans: plans::rule_plans(set, &streams),
        states: plans::state_plans(set, &streams),
        programs: Box::new(move || {
            let lanes = || Lanes { program: set.lane_program(), streams: Arc::clone(&streams) };
            let merged = set.final_program_of(|id| place.is_none_or(|place| place.is_home_of(id)));
            let (of_single, tally_of_single) = (Arc::clone(&streams), tally.clone());
            Reloaded {
                versions: BTreeMap::new(),
                lane_programs: (0..workers).map(|_| Box::new(lanes()) as _).collect(),
                final_program: Box::new(Bounded::new(merged, bytes, &tally)),
                programs: Box::new(move |rule| {
                    let (program, merged) = set.programs_of(rule);
                    let bytes = bytes.map(|bytes| bytes / SINGLE_RULE_SHARE);
                    let lanes = Lanes { program, streams: Arc::clone(&of_single) };
                    (Box::new(lanes), Box::new(Bounded::new(merged, bytes, &tally_of_single)))
                }),
            }
        }),
    }
}

/// A merged part that may have a share of memory, and counts how often something of it goes to disk.
struct Bounded {
    merged: Merged,
    is_bounded: bool,
    tally: Tally,
}

impl Bounded {
    fn new(program: wattline_sql::FinalProgram, bytes: Option<usize>, tally: &Tally) -> Self {
        let program = match bytes {
            Some(bytes) => program.with_memory(bytes, &std::env::temp_dir()),
            None => program,
        };
        Self { merged: Merged(program), is_bounded: bytes.is_some(), tally: tally.clone() }
    }
}

impl FinalProgram for Bounded {
    fn relieve(&mut self) -> Result<()> {
        if !self.is_bounded {
            return self.merged.relieve();
        }
        let before = self.merged.0.state_bytes();
        self.merged.relieve()?;
        if self.merged.0.state_bytes() < before {
            self.tally.count(Mishap::Spilled);
        }
        Ok(())
    }

    fn merge(&mut self, delta: &StateDelta) -> Result<(), String> {
        self.merged.merge(delta)
    }

    fn restore(&mut self, delta: &StateDelta) -> Result<(), String> {
        self.merged.restore(delta)
    }

    fn advance(&mut self, watermarks_us: &[i64]) -> Result<FinalOutput> {
        self.merged.advance(watermarks_us)
    }

    fn set_given(&mut self, state: usize, watermark_us: i64) {
        self.merged.set_given(state, watermark_us);
    }

    fn begin_at(&mut self, rule: usize, watermark_us: i64) {
        self.merged.begin_at(rule, watermark_us);
    }

    fn leave_out(&mut self, rule: usize, watermark_us: i64) {
        self.merged.leave_out(rule, watermark_us);
    }

    fn hold(&mut self, rule: usize) {
        self.merged.hold(rule);
    }

    fn renew(&mut self, state: usize, watermark_us: i64) {
        self.merged.renew(state, watermark_us);
    }

    fn go_on(&mut self, rule: usize, given_us: i64) {
        self.merged.go_on(rule, given_us);
    }

    fn taken_us(&self, state: usize) -> i64 {
        self.merged.taken_us(state)
    }

    fn dump(&mut self) -> Result<Deltas, String> {
        self.merged.dump()
    }

    fn dump_stages(&mut self) -> Result<StageStates, String> {
        self.merged.dump_stages()
    }

    fn restore_stage(&mut self, state: &StageState) -> Result<(), String> {
        self.merged.restore_stage(state)
    }

    fn state_rows(&self) -> usize {
        self.merged.state_rows()
    }
}
