//! The compiled rules behind the ports of the runtime.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use wattline_runtime::port::{
    self, Deltas, FinalOutput, RuleFailure, RuleOutput, RuleRows, StageState, StageStates, StateDelta,
};
use wattline_runtime::{Error, Result};
use wattline_sql::{FinalProgram, LaneProgram};

/// The lane part.
pub(crate) struct Lanes {
    pub(crate) program: LaneProgram,
    pub(crate) streams: Arc<[String]>,
}

impl port::LaneProgram for Lanes {
    fn push(&mut self, lane: u32, stream: usize, batch: &RecordBatch) -> RuleOutput {
        let output = self.program.push(lane, &self.streams[stream], batch);
        RuleOutput { rows: rows(output.rows), failures: failures(output.errors) }
    }

    fn seal(&mut self) -> Result<Vec<StateDelta>, String> {
        self.program.seal().map(deltas).map_err(|e| e.to_string())
    }

    fn close(&mut self, watermarks_us: &[i64]) -> Result<Vec<StateDelta>, String> {
        self.program.close(watermarks_us).map(deltas).map_err(|e| e.to_string())
    }

    fn first_final_us(&self) -> Vec<i64> {
        self.program.first_final_us()
    }

    fn state_bytes(&self) -> usize {
        self.program.state_bytes()
    }

    fn quarantine(&mut self, rule: usize, lane: u32) {
        self.program.quarantine(rule, lane);
    }
}

/// The merged part.
pub(crate) struct Merged(pub(crate) FinalProgram);

impl port::FinalProgram for Merged {
    fn merge(&mut self, delta: &StateDelta) -> Result<(), String> {
        let StateDelta { state, final_at_us, batch } = delta.clone();
        self.0.merge(&wattline_sql::StateDelta { state, final_at_us, batch }).map_err(|e| e.to_string())
    }

    fn restore(&mut self, delta: &StateDelta) -> Result<(), String> {
        let StateDelta { state, final_at_us, batch } = delta.clone();
        self.0.restore(&wattline_sql::StateDelta { state, final_at_us, batch }).map_err(|e| e.to_string())
    }

    fn relieve(&mut self) -> Result<()> {
        self.0.relieve().map_err(rule_error)
    }

    fn advance(&mut self, watermarks_us: &[i64]) -> Result<FinalOutput> {
        let output = self.0.advance(watermarks_us).map_err(rule_error)?;
        let (rows, failures) = (rows(output.rows), failures(output.errors));
        Ok(FinalOutput { rows, failures, stopped: output.stopped, more: output.more })
    }

    fn set_given(&mut self, state: usize, watermark_us: i64) {
        self.0.set_given(state, watermark_us);
    }

    fn begin_at(&mut self, rule: usize, watermark_us: i64) {
        self.0.begin_at(rule, watermark_us);
    }

    fn leave_out(&mut self, rule: usize, watermark_us: i64) {
        self.0.leave_out(rule, watermark_us);
    }

    fn hold(&mut self, rule: usize) {
        self.0.hold(rule);
    }

    fn renew(&mut self, state: usize, watermark_us: i64) {
        self.0.renew(state, watermark_us);
    }

    fn go_on(&mut self, rule: usize, given_us: i64) {
        self.0.go_on(rule, given_us);
    }

    fn taken_us(&self, state: usize) -> i64 {
        self.0.taken_us(state)
    }

    fn dump(&mut self) -> Result<Deltas, String> {
        let dump = self.0.dump().map_err(|e| e.to_string())?;
        Ok(Box::new(dump.map(|part| part.map(delta).map_err(|e| e.to_string()))))
    }

    fn dump_stages(&mut self) -> Result<StageStates, String> {
        let each =
            |wattline_sql::StageState { rule, taken_us, part, batch }| StageState { rule, taken_us, part, batch };
        let dump = self.0.dump_stages().map_err(|e| e.to_string())?;
        Ok(Box::new(dump.map(move |state| state.map(each).map_err(|e| e.to_string()))))
    }

    fn restore_stage(&mut self, state: &StageState) -> Result<(), String> {
        let StageState { rule, taken_us, part, batch } = state.clone();
        self.0.restore_stage(&wattline_sql::StageState { rule, taken_us, part, batch }).map_err(|e| e.to_string())
    }

    fn state_rows(&self) -> usize {
        self.0.state_rows()
    }
}

fn rows(rows: Vec<wattline_sql::RuleRows>) -> Vec<RuleRows> {
    rows.into_iter().map(|r| RuleRows { rule: r.rule, batch: r.batch, identity: r.identity }).collect()
}

fn delta(delta: wattline_sql::StateDelta) -> StateDelta {
    let wattline_sql::StateDelta { state, final_at_us, batch } = delta;
    StateDelta { state, final_at_us, batch }
}

fn deltas(deltas: Vec<wattline_sql::StateDelta>) -> Vec<StateDelta> {
    deltas.into_iter().map(delta).collect()
}

fn rule_error(error: wattline_sql::Error) -> Error {
    Error::Port { what: error.to_string(), kind: error.kind(), retry: error.retry(), source: Box::new(error) }
}

fn failures(errors: Vec<wattline_sql::RuleFailure>) -> Vec<RuleFailure> {
    errors
        .into_iter()
        .map(|e| RuleFailure { rule: e.rule, offset: e.offset.unwrap_or(-1), message: e.message })
        .collect()
}
