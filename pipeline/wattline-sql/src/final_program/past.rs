//! A rule that is given its past while the program runs.
//!
//! The rule is held from the start: its stages keep nothing and give nothing. Meanwhile it is run by itself over the past. When
//! that has come to where the program stands, the states that are the rule's own are renewed and filled with what the other
//! run holds, its stages are restored, and the rule goes on:
//!
//! ```text
//! hold ─▶ … the others go on … ─▶ renew each state of its own ─▶ go_on ─▶ restore_stage, merge of what the other run gave
//! ```
//! After that nothing tells it from a rule that had been there from the beginning: what a rule gives depends on the rows and on
//! the watermark, not on which program took them in.

use super::{FinalProgram, Stage};

impl FinalProgram {
    /// Nothing comes from the rule, and its stages keep nothing, until it is told to [`go_on`](Self::go_on).
    pub fn hold(&mut self, rule: usize) {
        self.stop(rule);
    }

    /// Empties a state and puts it at a watermark (microseconds): what is merged next is all that it holds.
    pub fn renew(&mut self, state: usize, watermark_us: i64) {
        self.empty_state(state);
        self.watermarks_us[state] = watermark_us;
    }

    /// A rule that was held goes on with empty stages; everything that it gives final at the watermark is out.
    pub fn go_on(&mut self, rule: usize, given_us: i64) {
        let root = Stage::new(&self.rules[rule].plan.root);
        let stages = &mut self.stages[rule];
        (stages.root, stages.given_us) = (root, given_us);
        (stages.stopped, stages.open) = (false, None);
    }
}
