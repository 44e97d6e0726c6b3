//! A mistake in a rule file: where, what, and what to write instead.
//!
//! All stages (header, parameters, parser, planner, checks) collect diagnostics rather than stop at the
//! first, so that one run of `check` shows every mistake of every file. Spans are byte ranges of the whole
//! file, because the file is parsed as one piece: the header is a SQL comment.

use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// The stable codes of this crate. A code keeps its meaning for ever; its page is in the runbook.
pub mod code {
    /// The file has no `/*--- … ---*/` header.
    pub const HEADER_MISSING: &str = "WL-2001";
    /// The header is not TOML.
    pub const HEADER_SYNTAX: &str = "WL-2002";
    /// The header has a key that does not exist.
    pub const HEADER_UNKNOWN_KEY: &str = "WL-2003";
    /// The header lacks a key it needs.
    pub const HEADER_MISSING_KEY: &str = "WL-2004";
    /// A header value has the wrong type or is out of its range.
    pub const HEADER_VALUE: &str = "WL-2005";
    /// The rule id differs from the file name.
    pub const ID_FILE_NAME: &str = "WL-2006";
    /// Two rules have one id, or a rule has the name of a stream or reference table.
    pub const NAME_TAKEN: &str = "WL-2007";
    /// `$name` without a value in `params`.
    pub const PARAM_UNKNOWN: &str = "WL-2010";
    /// A value in `params` that the query does not use.
    pub const PARAM_UNUSED: &str = "WL-2011";
    /// A number as an interval.
    pub const PARAM_UNIT: &str = "WL-2013";
    /// `backfill` in the header of a view.
    pub const BACKFILL: &str = "WL-2014";
    /// `delivery = "low_latency"` in a rule whose alerts could be others if they are computed again.
    pub const DELIVERY: &str = "WL-2015";
    /// A rule that does not say what it is for, after which standard, or whose it is, or has no test; only of `check --strict`.
    pub const UNGOVERNED: &str = "WL-2012";
    /// The SQL cannot be parsed.
    pub const SQL_SYNTAX: &str = "WL-2101";
    /// The file does not hold exactly one query.
    pub const SQL_NOT_ONE_QUERY: &str = "WL-2102";
    /// No stream, reference table or rule of that name.
    pub const UNKNOWN_TABLE: &str = "WL-2103";
    /// No column of that name.
    pub const UNKNOWN_COLUMN: &str = "WL-2104";
    /// No function of that name.
    pub const UNKNOWN_FUNCTION: &str = "WL-2105";
    /// The query cannot be planned for another reason (types, ambiguity, arity).
    pub const PLANNING: &str = "WL-2106";
    /// ORDER BY outside a window.
    pub const ORDER_BY: &str = "WL-2201";
    /// LIMIT, OFFSET or FETCH.
    pub const LIMIT: &str = "WL-2202";
    /// A window function (OVER) whose rows would never be final.
    pub const OVER: &str = "WL-2204";
    /// Aggregation that no window bounds.
    pub const UNBOUNDED_AGGREGATE: &str = "WL-2205";
    /// A function whose value changes from call to call.
    pub const VOLATILE: &str = "WL-2206";
    /// A join of two streams without a time bound.
    pub const STREAM_JOIN: &str = "WL-2207";
    /// An outer join that keeps unmatched rows of a reference table.
    pub const PRESERVED_REFERENCE: &str = "WL-2208";
    /// UNION without ALL, INTERSECT or EXCEPT.
    pub const SET_OPERATION: &str = "WL-2209";
    /// An approximate aggregate in an alert rule.
    pub const APPROXIMATE: &str = "WL-2210";
    /// A subquery where only a join can be kept up to date.
    pub const SUBQUERY: &str = "WL-2212";
    /// An aggregate whose result depends on the order of its input, without ORDER BY.
    pub const ORDER_SENSITIVE: &str = "WL-2213";
    /// Any other shape that does not run on a stream.
    pub const UNSUPPORTED: &str = "WL-2214";
    /// TUMBLE with wrong arguments, or over a column that is not the event time.
    pub const TUMBLE: &str = "WL-2215";
    /// A row pattern that is not bounded in time, or makes no sense.
    pub const PATTERN: &str = "WL-2220";
    /// A versioned reference table is joined where no event time is known.
    pub const AS_OF: &str = "WL-2216";
    /// Rules that read each other in a circle.
    pub const CYCLE: &str = "WL-2217";
    /// A delay that differs from the delay of the rule that is read.
    pub const DELAY_CONFLICT: &str = "WL-2218";
    /// The query reads no stream.
    pub const NO_STREAM: &str = "WL-2219";
    /// `late = "update"` where results cannot be corrected.
    pub const LATE_UPDATE: &str = "WL-2221";
    /// An alert rule without its entity column in the output.
    pub const ENTITY_COLUMN: &str = "WL-2301";
    /// A conventional output column with the wrong type.
    pub const COLUMN_TYPE: &str = "WL-2302";
    /// No event time in the output.
    pub const EVENT_TIME_COLUMN: &str = "WL-2303";
    /// An output name that is reserved or that the archive cannot hold.
    pub const OUTPUT_NAME: &str = "WL-2304";
    /// An output type that the archive cannot hold.
    pub const OUTPUT_TYPE: &str = "WL-2305";
    /// A rule test file that cannot be read.
    pub const TEST_FILE: &str = "WL-2401";
}

/// How bad a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The rule set is refused.
    Error,
    /// The rule set runs; something in it is likely not meant.
    Warning,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Refused or only suspicious.
    pub severity: Severity,
    /// Stable code, see [`code`].
    pub code: &'static str,
    /// What is wrong, lower case, values in backticks.
    pub message: String,
    /// The path of the file as given to the compiler.
    pub file: String,
    /// Byte range in the file; `None` when the mistake has no place in it.
    pub span: Option<Range<usize>>,
    /// What stands beside the underlined text.
    pub label: Option<String>,
    /// What to write instead.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error without a place; add one with [`Self::at`].
    pub fn error(code: &'static str, file: &str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            file: file.to_owned(),
            span: None,
            label: None,
            help: None,
        }
    }

    /// A warning without a place.
    pub fn warning(code: &'static str, file: &str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, file, message) }
    }

    /// Sets the place.
    #[must_use]
    pub fn at(mut self, span: impl Into<Option<Range<usize>>>) -> Self {
        self.span = span.into();
        self
    }

    /// Sets the text beside the place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Sets what to write instead.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Sets what to write instead, if there is a suggestion.
    #[must_use]
    pub fn help_if(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    /// The mistake as rustc would show it, with the lines of `source`.
    ///
    /// `source` is the text of the whole file; a span outside it is clipped.
    #[must_use]
    pub fn render(&self, source: &str, color: bool) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut main = match &self.span {
            Some(span) => {
                let span = clip(span, source);
                let annotation = AnnotationKind::Primary.span(span).label(self.label.as_deref());
                level
                    .primary_title(self.message.as_str())
                    .id(self.code)
                    .element(Snippet::source(source).path(self.file.as_str()).annotation(annotation))
            }
            None => Group::with_title(level.primary_title(self.message.as_str()).id(self.code))
                .element(annotate_snippets::Origin::path(self.file.as_str())),
        };
        if let Some(help) = &self.help {
            main = main.element(Level::HELP.message(help.as_str()));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        renderer.decor_style(DecorStyle::Ascii).render(&[main])
    }

    /// Line and column, both from 1, columns counted in characters.
    #[must_use]
    pub fn line_column(&self, source: &str) -> Option<(usize, usize)> {
        let start = clip(self.span.as_ref()?, source).start;
        let before = &source[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Some((before.matches('\n').count() + 1, before[line_start..].chars().count() + 1))
    }
}

fn clip(span: &Range<usize>, source: &str) -> Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(source.len());
        while !source.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start);
    start..floor(span.end).max(start)
}

/// The byte offset of a line and column (both from 1, columns in characters); `None` for the empty location 0, 0.
pub(crate) fn byte_offset(source: &str, line: u64, column: u64) -> Option<usize> {
    if line == 0 || column == 0 {
        return None;
    }
    let mut start = 0_usize;
    for _ in 1..line {
        start += source[start..].find('\n')? + 1;
    }
    let rest = &source[start..];
    let skipped = rest.char_indices().nth(usize::try_from(column).ok()? - 1).map_or(rest.len(), |(at, _)| at);
    Some(start + skipped)
}

/// The name of `candidates` that is most like `name`, if one is close enough to be meant.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(2);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= limit || (name.len() >= 4 && (candidate.starts_with(name) || name.starts_with(candidate)))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_shows_its_line() {
        let source = "SELECT meter_id,\n       voltge\nFROM meter_readings\n";
        let at = source.find("voltge").expect("present");
        let diagnostic = Diagnostic::error(code::UNKNOWN_COLUMN, "sql/pq/x.sql", "there is no column `voltge`")
            .at(at..at + 6)
            .label("not found")
            .help("write `voltage`");
        let text = diagnostic.render(source, false);
        assert!(text.contains("error[WL-2104]: there is no column `voltge`"), "{text}");
        assert!(text.contains("--> sql/pq/x.sql:2:8"), "{text}");
        assert!(text.contains("^^^^^^ not found"), "{text}");
        assert!(text.contains("help: write `voltage`"), "{text}");
        assert_eq!(diagnostic.line_column(source), Some((2, 8)));
        assert_eq!(byte_offset(source, 2, 8), Some(at));
    }

    #[test]
    fn the_nearest_name_is_near() {
        let names = ["meter_id", "window_start", "u_a_v"];
        assert_eq!(nearest("metr_id", names), Some("meter_id"));
        assert_eq!(nearest("windowstart", names), Some("window_start"));
        assert_eq!(nearest("customer", names), None);
    }
}
