//! PATTERN as a program for a matcher that tries the preferred way first and goes back.
//!
//! `a*` prefers one more `a`, `a*?` prefers none; of alternatives the first is preferred. Counted repetitions are written
//! out, so a program has no counters and its state is a position.

use std::collections::BTreeSet;

use datafusion::sql::sqlparser::ast::{
    Ident, MatchRecognizePattern as Pattern, MatchRecognizeSymbol, RepetitionQuantifier,
};

/// Steps that a pattern may have, all repetitions written out.
const STEPS_MAX: usize = 4_096;
/// Symbols that PERMUTE may have: it stands for all their orders.
const PERMUTED_MAX: usize = 5;

/// One step of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Takes a row for the symbol; `excluded`: written `{- a -}`, not given out.
    Row {
        symbol: usize,
        excluded: bool,
    },
    /// Goes on at the first place, and at the second if that leads to no match.
    Either(usize, usize),
    Goto(usize),
    Done,
}

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) steps: Vec<Step>,
}

/// The symbols of a pattern in the order in which they come, by their normalised names.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    names: Vec<String>,
    written: Vec<String>,
}

impl Symbols {
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// As they are written in PATTERN.
    pub(crate) fn written(&self) -> &[String] {
        &self.written
    }

    fn add(&mut self, ident: &Ident) -> usize {
        let name = normalized(ident);
        self.position(&name).unwrap_or_else(|| {
            self.names.push(name);
            self.written.push(ident.value.clone());
            self.names.len() - 1
        })
    }
}

/// The name of a symbol as it is compared: unquoted ones without case.
pub(crate) fn normalized(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

impl Program {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with the pattern and what to write instead, for a message.
    pub(crate) fn compile(pattern: &Pattern) -> Result<(Self, Symbols), (String, &'static str)> {
        if is_nullable(pattern) {
            return Err((
                "the pattern can match without any row, and then it would match everywhere".to_owned(),
                "make a symbol of it required: `a+` in place of `a*`",
            ));
        }
        let mut compiler = Compiler { steps: Vec::new(), symbols: Symbols::default() };
        compiler.emit(pattern)?;
        compiler.push(Step::Done)?;
        Ok((Self { steps: compiler.steps }, compiler.symbols))
    }

    /// The symbols that the first row of a match can have, and those that a later row can have.
    pub(crate) fn places(&self) -> (BTreeSet<usize>, BTreeSet<usize>) {
        let first = self.rows_from(0);
        let (mut later, mut pending) = (BTreeSet::new(), first.clone());
        while let Some(at) = pending.pop_first() {
            for next in self.rows_from(at + 1) {
                if later.insert(next) {
                    pending.insert(next);
                }
            }
        }
        let symbols = |steps: BTreeSet<usize>| steps.into_iter().filter_map(|at| self.symbol(at)).collect();
        (symbols(first), symbols(later))
    }

    /// Whether there can be a match without a row of the symbol behind its first row.
    pub(crate) fn can_go_on_without(&self, symbol: usize) -> bool {
        let (mut seen, mut pending) = (BTreeSet::new(), vec![(0, false)]);
        while let Some((at, has_begun)) = pending.pop() {
            if !seen.insert((at, has_begun)) {
                continue;
            }
            match self.steps[at] {
                Step::Done => return true,
                Step::Goto(to) => pending.push((to, has_begun)),
                Step::Either(first, second) => pending.extend([(first, has_begun), (second, has_begun)]),
                Step::Row { symbol: of, .. } if has_begun && of == symbol => {}
                Step::Row { .. } => pending.push((at + 1, true)),
            }
        }
        false
    }

    /// The most rows that a match can have; `None` if there is no such number.
    pub(crate) fn rows_max(&self) -> Option<usize> {
        let back = |(at, step): (usize, &Step)| matches!(step, Step::Goto(to) if *to <= at);
        let back_or_split = self
            .steps
            .iter()
            .enumerate()
            .any(|(at, step)| back((at, step)) || matches!(step, Step::Either(a, b) if *a <= at || *b <= at));
        if back_or_split {
            return None;
        }
        // Without ways back the longest way is found from the end.
        let mut longest = vec![0_usize; self.steps.len() + 1];
        for (at, step) in self.steps.iter().enumerate().rev() {
            longest[at] = match step {
                Step::Row { .. } => longest[at + 1] + 1,
                Step::Either(a, b) => longest[*a].max(longest[*b]),
                Step::Goto(to) => longest[*to],
                Step::Done => 0,
            };
        }
        longest.first().copied()
    }

    fn symbol(&self, at: usize) -> Option<usize> {
        match self.steps[at] {
            Step::Row { symbol, .. } => Some(symbol),
            Step::Either(..) | Step::Goto(_) | Step::Done => None,
        }
    }

    /// The row steps that can come next at `at`.
    fn rows_from(&self, at: usize) -> BTreeSet<usize> {
        let (mut rows, mut seen, mut pending) = (BTreeSet::new(), BTreeSet::new(), vec![at]);
        while let Some(at) = pending.pop() {
            if !seen.insert(at) {
                continue;
            }
            match self.steps[at] {
                Step::Row { .. } => {
                    rows.insert(at);
                }
                Step::Either(a, b) => pending.extend([a, b]),
                Step::Goto(to) => pending.push(to),
                Step::Done => {}
            }
        }
        rows
    }
}

struct Compiler {
    steps: Vec<Step>,
    symbols: Symbols,
}

type Compiled = Result<(), (String, &'static str)>;

impl Compiler {
    fn push(&mut self, step: Step) -> Compiled {
        self.steps.push(step);
        if self.steps.len() > STEPS_MAX {
            return Err((
                format!("the pattern has more than {STEPS_MAX} steps with its repetitions written out"),
                "use smaller numbers, or `a+` with a bound in DEFINE",
            ));
        }
        Ok(())
    }

    fn row(&mut self, symbol: &MatchRecognizeSymbol, excluded: bool) -> Compiled {
        match symbol {
            MatchRecognizeSymbol::Named(name) => {
                let symbol = self.symbols.add(name);
                self.push(Step::Row { symbol, excluded })
            }
            MatchRecognizeSymbol::Start | MatchRecognizeSymbol::End => Err((
                format!("`{symbol}` is about the first or last row of all, and a stream has no last row"),
                "leave it out, and say in DEFINE what the row is like",
            )),
        }
    }

    fn emit(&mut self, pattern: &Pattern) -> Compiled {
        match pattern {
            Pattern::Symbol(symbol) => self.row(symbol, false),
            Pattern::Exclude(symbol) => self.row(symbol, true),
            Pattern::Group(inner) => self.emit(inner),
            Pattern::Concat(parts) => parts.iter().try_for_each(|part| self.emit(part)),
            Pattern::Alternation(ways) => self.alternatives(ways),
            Pattern::Permute(symbols) => self.permute(symbols),
            // `a*?`: the parser takes the question mark for a quantifier of its own.
            Pattern::Repetition(inner, RepetitionQuantifier::AtMostOne) => match inner.as_ref() {
                Pattern::Repetition(inner, quantifier) => self.repeat(inner, quantifier, false),
                _ => self.repeat(inner, &RepetitionQuantifier::AtMostOne, true),
            },
            Pattern::Repetition(inner, quantifier) => match inner.as_ref() {
                Pattern::Repetition(..) => {
                    Err((format!("`{pattern}` repeats a repetition"), "put the inner one into parentheses: `(a+){2}`"))
                }
                _ => self.repeat(inner, quantifier, true),
            },
        }
    }

    fn alternatives(&mut self, ways: &[Pattern]) -> Compiled {
        let mut ends = Vec::new();
        for (number, way) in ways.iter().enumerate() {
            if number + 1 == ways.len() {
                self.emit(way)?;
                break;
            }
            let split = self.steps.len();
            self.push(Step::Done)?;
            self.emit(way)?;
            ends.push(self.steps.len());
            self.push(Step::Done)?;
            self.steps[split] = Step::Either(split + 1, self.steps.len());
        }
        let end = self.steps.len();
        ends.into_iter().for_each(|at| self.steps[at] = Step::Goto(end));
        Ok(())
    }

    /// All orders of the symbols, those first that begin as written.
    fn permute(&mut self, symbols: &[MatchRecognizeSymbol]) -> Compiled {
        if symbols.len() > PERMUTED_MAX {
            return Err((
                format!("PERMUTE of {} symbols stands for more than a hundred orders", symbols.len()),
                "write the alternatives that matter: `(a b c | b a c)`",
            ));
        }
        let orders = orders_of(symbols.len());
        let way = |order: Vec<usize>| {
            Pattern::Concat(order.into_iter().map(|at| Pattern::Symbol(symbols[at].clone())).collect())
        };
        // The symbols are numbered as they are written.
        self.alternatives(&orders.into_iter().map(way).collect::<Vec<_>>())
    }

    fn repeat(&mut self, inner: &Pattern, quantifier: &RepetitionQuantifier, greedy: bool) -> Compiled {
        let (least, most) = match quantifier {
            RepetitionQuantifier::ZeroOrMore => (0, None),
            RepetitionQuantifier::OneOrMore => (1, None),
            RepetitionQuantifier::AtMostOne => (0, Some(1)),
            RepetitionQuantifier::Exactly(n) => (*n, Some(*n)),
            RepetitionQuantifier::AtLeast(n) => (*n, None),
            RepetitionQuantifier::AtMost(n) => (0, Some(*n)),
            RepetitionQuantifier::Range(n, m) => (*n, Some(*m)),
        };
        if most.is_some_and(|most| most < least) {
            return Err((format!("`{quantifier}` allows no number of rows"), "write the smaller number first"));
        }
        (0..least).try_for_each(|_time| self.emit(inner))?;
        let Some(most) = most else { return self.repeat_without_end(inner, greedy) };
        let mut splits = Vec::new();
        for _time in least..most {
            splits.push(self.steps.len());
            self.push(Step::Done)?;
            self.emit(inner)?;
        }
        let end = self.steps.len();
        splits.into_iter().for_each(|at| self.steps[at] = either(at + 1, end, greedy));
        Ok(())
    }

    fn repeat_without_end(&mut self, inner: &Pattern, greedy: bool) -> Compiled {
        if is_nullable(inner) {
            return Err((
                format!("`{inner}` can match without a row, and it would be repeated without end"),
                "repeat something that takes a row: `a*` in place of `(a?)*`",
            ));
        }
        let split = self.steps.len();
        self.push(Step::Done)?;
        self.emit(inner)?;
        self.push(Step::Goto(split))?;
        self.steps[split] = either(split + 1, self.steps.len(), greedy);
        Ok(())
    }
}

fn either(more: usize, enough: usize, greedy: bool) -> Step {
    if greedy { Step::Either(more, enough) } else { Step::Either(enough, more) }
}

/// All orders of the first `n` numbers, in ascending order.
fn orders_of(n: usize) -> Vec<Vec<usize>> {
    let mut orders = vec![Vec::new()];
    for _place in 0..n {
        let longer = |order: Vec<usize>| {
            let free: Vec<usize> = (0..n).filter(|at| !order.contains(at)).collect();
            free.into_iter().map(move |at| [&order[..], &[at]].concat())
        };
        orders = orders.into_iter().flat_map(longer).collect();
    }
    orders
}

fn is_nullable(pattern: &Pattern) -> bool {
    match pattern {
        Pattern::Symbol(_) | Pattern::Exclude(_) => false,
        Pattern::Permute(symbols) => symbols.is_empty(),
        Pattern::Concat(parts) => parts.iter().all(is_nullable),
        Pattern::Group(inner) => is_nullable(inner),
        Pattern::Alternation(ways) => ways.iter().any(is_nullable),
        Pattern::Repetition(inner, quantifier) => match quantifier {
            RepetitionQuantifier::ZeroOrMore | RepetitionQuantifier::AtMost(_) => true,
            // The question mark of `a+?` takes nothing away.
            RepetitionQuantifier::AtMostOne => !matches!(inner.as_ref(), Pattern::Repetition(..)) || is_nullable(inner),
            RepetitionQuantifier::Exactly(0) | RepetitionQuantifier::AtLeast(0) | RepetitionQuantifier::Range(0, _) => {
                true
            }
            RepetitionQuantifier::OneOrMore
            | RepetitionQuantifier::Exactly(_)
            | RepetitionQuantifier::AtLeast(_)
            | RepetitionQuantifier::Range(..) => is_nullable(inner),
        },
    }
}
