//! The stages of a rule over final rows, with what they keep.
//!
//! A tree like the [`Node`]s of the plan. An advance goes from the feeds up: each stage takes what its input has given out
//! for this watermark, and gives out what the watermark makes final. Stages that keep state are numbered in the order of a walk
//! from the root down; a snapshot names each part of their state by that number.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use wattline_core::time::BEFORE_TIME;

use crate::operators::{
    Chunk, FinalPanes, Lookups, Operator, OverStage, PatternStage, SessionStage, StreamJoinStage, record_batch, run_all,
};
use crate::planner::Node;

/// What a state has given out for one watermark.
#[derive(Debug, Default)]
pub(super) struct Released {
    pub(super) batches: Vec<RecordBatch>,
    /// For each batch what rules have looked up for its rows: one asks, the others that share the state have the answer.
    pub(super) lookups: Vec<Lookups>,
    /// Row by row the event, for rows in order.
    pub(super) identity: Option<RecordBatch>,
}

impl Released {
    pub(super) fn new(batches: Vec<RecordBatch>, identity: Option<RecordBatch>) -> Self {
        let lookups = batches.iter().map(|_batch| Lookups::default()).collect();
        Self { batches, lookups, identity }
    }
}

/// A node of the plan at work.
#[derive(Debug)]
pub(super) enum Stage {
    Feed(usize),
    Steps(Box<Stage>, Vec<Operator>),
    Windows(Box<Stage>, FinalPanes),
    Over(Box<Stage>, OverStage),
    Sessions(Box<Stage>, SessionStage),
    Patterns(Box<Stage>, PatternStage),
    Join(Box<(Stage, Stage)>, StreamJoinStage),
    Union(Vec<Stage>, SchemaRef),
}

impl Stage {
    pub(super) fn new(node: &Node) -> Self {
        match node {
            Node::Feed(feed) => Self::Feed(*feed),
            Node::Steps(input, steps) => Self::Steps(Box::new(Self::new(input)), steps.clone()),
            Node::Windows(input, spec) => Self::Windows(Box::new(Self::new(input)), FinalPanes::new(Arc::clone(spec))),
            Node::Over(input, spec) => Self::Over(Box::new(Self::new(input)), OverStage::new(Arc::clone(spec))),
            Node::Sessions(input, spec) => {
                Self::Sessions(Box::new(Self::new(input)), SessionStage::new(Arc::clone(spec)))
            }
            Node::Patterns(input, spec) => {
                Self::Patterns(Box::new(Self::new(input)), PatternStage::new(Arc::clone(spec)))
            }
            Node::Join(left, right, spec) => {
                let inputs = (Self::new(left), Self::new(right));
                Self::Join(Box::new(inputs), StreamJoinStage::new(Arc::clone(spec)))
            }
            Node::Union(inputs, schema) => Self::Union(inputs.iter().map(Self::new).collect(), Arc::clone(schema)),
        }
    }

    /// The rows that the watermark makes final. Messages of rows that could not be computed go to `failures`.
    ///
    /// # Errors
    /// If a stage that keeps state fails: what it keeps is then of no use.
    pub(super) fn advance(
        &mut self,
        feeds: &[&Released],
        watermark_us: i64,
        failures: &mut Vec<String>,
    ) -> Result<Vec<RecordBatch>> {
        match self {
            Self::Feed(feed) => Ok(feeds[*feed].batches.clone()),
            Self::Steps(input, steps) => {
                let shared = match input.as_ref() {
                    Self::Feed(feed) => &feeds[*feed].lookups[..],
                    _ => &[],
                };
                let mut given = Vec::new();
                for (at, batch) in input.advance(feeds, watermark_us, failures)?.into_iter().enumerate() {
                    let own = Lookups::default();
                    let lookups = shared.get(at).unwrap_or(&own);
                    halving(Chunk::whole(batch), failures, |chunk| {
                        given.extend(run_all(steps, chunk, lookups)?.map(|chunk| chunk.batch));
                        Ok(())
                    });
                }
                Ok(given)
            }
            Self::Windows(input, panes) => {
                for batch in input.advance(feeds, watermark_us, failures)? {
                    let mut evaluated = Vec::new();
                    halving(Chunk::whole(batch), failures, |chunk| {
                        evaluated.push(panes.spec().evaluate(&chunk)?);
                        Ok(())
                    });
                    evaluated.iter().try_for_each(|partial| panes.update(partial))?;
                }
                Ok(panes.close_until(BEFORE_TIME, watermark_us, usize::MAX)?.batches)
            }
            Self::Over(input, stage) => {
                for batch in input.advance(feeds, watermark_us, failures)? {
                    stage.push(&batch)?;
                }
                Ok(stage.give(watermark_us)?.into_iter().collect())
            }
            Self::Sessions(input, stage) => {
                for batch in input.advance(feeds, watermark_us, failures)? {
                    stage.push(&batch)?;
                }
                Ok(stage.give(watermark_us)?.into_iter().collect())
            }
            Self::Patterns(input, stage) => {
                for batch in input.advance(feeds, watermark_us, failures)? {
                    stage.push(&batch)?;
                }
                Ok(stage.give(watermark_us)?.into_iter().collect())
            }
            Self::Join(inputs, stage) => {
                let left = inputs.0.advance(feeds, watermark_us, failures)?;
                let right = inputs.1.advance(feeds, watermark_us, failures)?;
                stage.advance(&left, &right, watermark_us)
            }
            Self::Union(inputs, schema) => {
                let mut given = Vec::new();
                for input in inputs {
                    for batch in input.advance(feeds, watermark_us, failures)? {
                        given.push(record_batch(schema, batch.columns().to_vec(), batch.num_rows())?);
                    }
                }
                Ok(given)
            }
        }
    }

    fn inputs(&mut self) -> Vec<&mut Self> {
        match self {
            Self::Feed(_) => Vec::new(),
            Self::Steps(input, _)
            | Self::Windows(input, _)
            | Self::Over(input, _)
            | Self::Sessions(input, _)
            | Self::Patterns(input, _) => vec![input],
            Self::Join(inputs, _) => vec![&mut inputs.0, &mut inputs.1],
            Self::Union(inputs, _) => inputs.iter_mut().collect(),
        }
    }

    /// The state of all stages, in numbered parts.
    pub(super) fn dump(&mut self) -> Result<Vec<(usize, RecordBatch)>> {
        let mut parts = Vec::new();
        self.visit(&mut 0, &mut |number, stage| {
            match stage {
                Self::Windows(_, panes) => {
                    let drained = panes.drain()?;
                    for (_, batch) in drained {
                        panes.merge(&batch, BEFORE_TIME)?;
                        parts.push((number * PARTS, batch));
                    }
                }
                Self::Over(_, stage) => {
                    let dumped = stage.dump()?.into_iter().enumerate();
                    parts.extend(dumped.map(|(part, batch)| (number * PARTS + part, batch)));
                }
                Self::Sessions(_, stage) => parts.push((number * PARTS, stage.dump()?)),
                Self::Patterns(_, stage) => {
                    let dumped = stage.dump()?.into_iter().enumerate();
                    parts.extend(dumped.map(|(part, batch)| (number * PARTS + part, batch)));
                }
                Self::Join(_, stage) => {
                    let dumped = stage.dump()?.into_iter().enumerate();
                    parts.extend(dumped.map(|(part, batch)| (number * PARTS + part, batch)));
                }
                Self::Feed(_) | Self::Steps(..) | Self::Union(..) => {}
            }
            Ok(())
        })?;
        Ok(parts)
    }

    /// Takes back one part of the state, as it was when everything final at `given_us` had been given out.
    pub(super) fn restore(&mut self, part: usize, batch: &RecordBatch, given_us: i64) -> Result<()> {
        self.visit(&mut 0, &mut |number, stage| match stage {
            _ if number != part / PARTS => Ok(()),
            Self::Windows(_, panes) => panes.merge(batch, BEFORE_TIME),
            Self::Over(_, stage) => stage.restore(part % PARTS, batch, given_us),
            Self::Sessions(_, stage) => stage.push(batch),
            Self::Patterns(_, stage) => stage.restore(part % PARTS, batch, given_us),
            Self::Join(_, stage) => stage.restore(part % PARTS, batch),
            Self::Feed(_) | Self::Steps(..) | Self::Union(..) => Ok(()),
        })
    }

    fn visit(&mut self, next: &mut usize, each: &mut dyn FnMut(usize, &mut Self) -> Result<()>) -> Result<()> {
        each(*next, self)?;
        *next += 1;
        self.inputs().into_iter().try_for_each(|input| input.visit(next, each))
    }

    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Feed(_) => 0,
            Self::Steps(input, _) => input.rows(),
            Self::Windows(input, panes) => input.rows() + panes.rows(),
            Self::Over(input, stage) => input.rows() + stage.rows(),
            Self::Sessions(input, stage) => input.rows() + stage.rows(),
            Self::Patterns(input, stage) => input.rows() + stage.rows(),
            Self::Join(inputs, stage) => inputs.0.rows() + inputs.1.rows() + stage.rows(),
            Self::Union(inputs, _) => inputs.iter().map(Self::rows).sum(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Feed(_) => 0,
            Self::Steps(input, _) => input.bytes(),
            Self::Windows(input, panes) => input.bytes() + panes.bytes(),
            Self::Over(input, stage) => input.bytes() + stage.bytes(),
            Self::Sessions(input, stage) => input.bytes() + stage.bytes(),
            Self::Patterns(input, stage) => input.bytes() + stage.bytes(),
            Self::Join(inputs, stage) => inputs.0.bytes() + inputs.1.bytes() + stage.bytes(),
            Self::Union(inputs, _) => inputs.iter().map(Self::bytes).sum(),
        }
    }
}

/// Parts that the state of one stage may have.
const PARTS: usize = 4;

/// Does something to rows; if it fails, to halves of them, down to the single rows that fail on their own.
fn halving(rows: Chunk, failures: &mut Vec<String>, mut each: impl FnMut(Chunk) -> Result<()>) {
    let mut pending = vec![rows];
    while let Some(chunk) = pending.pop() {
        let rows = chunk.len();
        match each(chunk.clone()) {
            Ok(()) => {}
            Err(_) if rows > 1 => {
                pending.push(chunk.slice(rows / 2, rows - rows / 2));
                pending.push(chunk.slice(0, rows / 2));
            }
            Err(error) => failures.push(error.strip_backtrace()),
        }
    }
}
