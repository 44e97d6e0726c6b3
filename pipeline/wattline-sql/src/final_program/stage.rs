//! The stages of a rule over final rows, with what they keep.
//!
//! A tree like the [`Node`]s of the plan. An advance goes from the feeds up: each stage takes what its input has given out
//! for this watermark, and gives out what the watermark makes final. What is much comes in parts: as long as an input has more to give, a
//! stage takes in and waits. Stages that keep state are numbered in the order of a walk from the root down; a snapshot names
//! each part of their state by that number.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::Result;

use crate::operators::{
    Chunk, Exchange, Exchanged, FinalPanes, Given, KeptPart, Lookups, Operator, OverStage, PatternStage, SessionStage,
    StreamJoinStage, halving, record_batch, run_all,
};
use crate::planner::Node;

/// What a state has given out for one watermark, or a part of it.
#[derive(Debug, Default)]
pub(super) struct Released {
    pub(super) batches: Vec<RecordBatch>,
    /// For each batch what rules have looked up for its rows: one asks, the others that share the state have the answer.
    pub(super) lookups: Vec<Lookups>,
    /// Row by row the event, for rows in order.
    pub(super) identity: Option<RecordBatch>,
    /// The rest comes with the next call.
    pub(super) more: bool,
}

impl Released {
    pub(super) fn new(batches: Vec<RecordBatch>, identity: Option<RecordBatch>) -> Self {
        let lookups = batches.iter().map(|_batch| Lookups::default()).collect();
        Self { batches, lookups, identity, more: false }
    }

    pub(super) fn bytes(&self) -> usize {
        self.batches.iter().map(RecordBatch::get_array_memory_size).sum()
    }
}

/// A node of the plan at work.
#[derive(Debug)]
pub(super) enum Stage {
    Feed(usize),
    Steps(Box<Stage>, Vec<Operator>),
    /// A stage that keeps state, and its inputs.
    Keyed(Vec<Stage>, Box<dyn Exchanged>),
    Union(Vec<Stage>, SchemaRef),
}

/// How far an advance goes, and what it has to say.
#[derive(Debug)]
pub(super) struct Advance<'a> {
    /// What each feed has given out.
    pub(super) feeds: &'a [&'a Released],
    pub(super) watermark_us: i64,
    /// Rows, about, after which a stage gives the rest with the next call.
    pub(super) part_rows: usize,
    /// The disk did not take something, which a stage then keeps in memory.
    pub(super) put_off: bool,
    /// Messages of rows that could not be computed.
    pub(super) failures: &'a mut Vec<String>,
}

impl Stage {
    pub(super) fn new(node: &Node) -> Self {
        let input = |node| vec![Self::new(node)];
        match node {
            Node::Feed(feed) => Self::Feed(*feed),
            Node::Steps(input, steps) => Self::Steps(Box::new(Self::new(input)), steps.clone()),
            Node::Windows(of, spec) => Self::Keyed(input(of), Box::new(Exchange::<FinalPanes>::new(Arc::clone(spec)))),
            Node::Over(of, spec) => Self::Keyed(input(of), Box::new(Exchange::<OverStage>::new(Arc::clone(spec)))),
            Node::Sessions(of, spec) => {
                Self::Keyed(input(of), Box::new(Exchange::<SessionStage>::new(Arc::clone(spec))))
            }
            Node::Patterns(of, spec) => {
                Self::Keyed(input(of), Box::new(Exchange::<PatternStage>::new(Arc::clone(spec))))
            }
            Node::Join(left, right, spec) => {
                let inputs = vec![Self::new(left), Self::new(right)];
                Self::Keyed(inputs, Box::new(Exchange::<StreamJoinStage>::new(Arc::clone(spec))))
            }
            Node::Union(inputs, schema) => Self::Union(inputs.iter().map(Self::new).collect(), Arc::clone(schema)),
        }
    }

    /// The rows that the watermark makes final, or a part of them.
    ///
    /// # Errors
    /// If a stage that keeps state fails: what it keeps is then of no use.
    pub(super) fn advance(&mut self, to: &mut Advance<'_>) -> Result<Given> {
        match self {
            Self::Feed(feed) => {
                let Released { batches, more, .. } = to.feeds[*feed];
                Ok(Given { batches: batches.clone(), more: *more })
            }
            Self::Steps(input, steps) => {
                let shared = match input.as_ref() {
                    Self::Feed(feed) => &to.feeds[*feed].lookups[..],
                    _ => &[],
                };
                let Given { batches, more } = input.advance(to)?;
                let mut given = Vec::new();
                for (at, batch) in batches.into_iter().enumerate() {
                    let own = Lookups::default();
                    let lookups = shared.get(at).unwrap_or(&own);
                    halving(Chunk::whole(batch), to.failures, |chunk| {
                        given.extend(run_all(steps, chunk, lookups)?.map(|chunk| chunk.batch));
                        Ok(())
                    });
                }
                Ok(Given { batches: given, more })
            }
            Self::Keyed(inputs, stage) => {
                let mut whole = true;
                for (side, input) in inputs.iter_mut().enumerate() {
                    let Given { batches, more } = input.advance(to)?;
                    batches.into_iter().try_for_each(|batch| stage.push(side, batch, to.failures))?;
                    whole &= !more;
                }
                let given = stage.advance(whole.then_some(to.watermark_us), to.part_rows);
                to.put_off |= stage.take_put_off();
                given
            }
            Self::Union(inputs, schema) => {
                let mut given = Given::default();
                for input in inputs {
                    let Given { batches, more } = input.advance(to)?;
                    for batch in batches {
                        given.batches.push(record_batch(schema, batch.columns().to_vec(), batch.num_rows())?);
                    }
                    given.more |= more;
                }
                Ok(given)
            }
        }
    }

    fn inputs(&mut self) -> &mut [Self] {
        match self {
            Self::Feed(_) => &mut [],
            Self::Steps(input, _) => std::slice::from_mut(input),
            Self::Keyed(inputs, _) | Self::Union(inputs, _) => inputs,
        }
    }

    /// The state of all stages, in numbered parts.
    pub(super) fn dump(&mut self) -> Result<Vec<(usize, KeptPart)>> {
        let mut all = Vec::new();
        self.visit(&mut 0, &mut |number, stage| {
            let parts = stage.dump()?.into_iter();
            all.extend(parts.map(|(part, kept)| (number * PARTS + part, kept)));
            Ok(())
        })?;
        Ok(all)
    }

    /// Takes back one part of the state, as it was when everything final at `given_us` had been given out.
    pub(super) fn restore(&mut self, part: usize, batch: &RecordBatch, given_us: i64) -> Result<()> {
        self.visit(&mut 0, &mut |number, stage| match number == part / PARTS {
            true => stage.restore(part % PARTS, batch, given_us),
            false => Ok(()),
        })
    }

    /// All stages that keep state, each with its number.
    pub(super) fn visit(
        &mut self,
        next: &mut usize,
        each: &mut dyn FnMut(usize, &mut dyn Exchanged) -> Result<()>,
    ) -> Result<()> {
        if let Self::Keyed(_, stage) = self {
            each(*next, stage.as_mut())?;
        }
        *next += 1;
        self.inputs().iter_mut().try_for_each(|input| input.visit(next, each))
    }

    fn sum(&self, of: &dyn Fn(&dyn Exchanged) -> usize) -> usize {
        match self {
            Self::Feed(_) => 0,
            Self::Steps(input, _) => input.sum(of),
            Self::Keyed(inputs, stage) => of(stage.as_ref()) + inputs.iter().map(|input| input.sum(of)).sum::<usize>(),
            Self::Union(inputs, _) => inputs.iter().map(|input| input.sum(of)).sum(),
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.sum(&|stage| stage.rows())
    }

    pub(super) fn bytes(&self) -> usize {
        self.sum(&|stage| stage.bytes())
    }

    /// Memory that can be given back to the disk.
    pub(super) fn bytes_to_spill(&self) -> usize {
        self.sum(&|stage| stage.bytes_to_spill())
    }
}

/// Parts that the state of one stage may have.
const PARTS: usize = 4;
