//! What sqlparser and DataFusion say about a query, as diagnostics with a place and the nearest right name.

use std::ops::Range;

use datafusion::common::{Column, Diagnostic as PlanDiagnostic, SchemaError, Span};
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;

use super::match_recognize::PATTERN_HELP;
use super::refusal::{balance, plan_span_in};
use super::window_tables::WINDOW_TABLE_HELP;
use super::{Anchor, Anchors, Scope};
use crate::diagnostic::{Diagnostic, byte_offset, code, nearest};
use crate::rule_file::RuleFile;

/// A syntax error: the parser's message, at the line and column it names at its end.
pub(crate) fn parse_mistake(file: &RuleFile, error: &ParserError) -> Diagnostic {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.clone(),
        ParserError::RecursionLimitExceeded => "the query is nested too deeply".to_owned(),
    };
    let (message, place) = split_location(&text);
    let span = place.and_then(|(line, column)| byte_offset(&file.text, line, column)).map(|start| {
        let word = file.text[start..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(0);
        start..(start + word.max(1)).min(file.text.len())
    });
    let message = message.trim_start_matches("sql parser error: ");
    let mut letters = message.chars();
    let message = letters.next().map(|first| first.to_lowercase().chain(letters).collect::<String>());
    Diagnostic::error(code::SQL_SYNTAX, &file.path, message.unwrap_or_default()).at(span)
}

fn split_location(text: &str) -> (&str, Option<(u64, u64)>) {
    let Some(at) = text.rfind(" at Line: ") else { return (text, None) };
    let numbers: Vec<u64> =
        text[at..].split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect();
    match numbers[..] {
        [line, column, ..] => (&text[..at], Some((line, column))),
        _ => (&text[..at], None),
    }
}

/// All mistakes the planner found in one query.
pub(crate) fn planning_mistakes(
    file: &RuleFile,
    error: &DataFusionError,
    scope: &Scope,
    anchors: &Anchors,
) -> Vec<Diagnostic> {
    error.iter().map(|error| planning_mistake(file, error, scope, anchors)).collect()
}

fn planning_mistake(file: &RuleFile, error: &DataFusionError, scope: &Scope, anchors: &Anchors) -> Diagnostic {
    let place = error.diagnostic().and_then(|diagnostic| diagnostic.span);
    let place = place.and_then(|span| plan_span_in(&file.text, span));
    let root = error.find_root();
    if let DataFusionError::SchemaError(schema, _) = root
        && let SchemaError::FieldNotFound { field, valid_fields } = schema.as_ref()
    {
        let place = place
            .or_else(|| field.spans().first().and_then(|span| plan_span_in(&file.text, span)))
            .or_else(|| word_in_query(&file.text, &field.name));
        if let Some(place) = place.clone().filter(|place| anchors.is_in_on(place)) {
            let message =
                format!("a subquery in ON does not see `{}` of the tables that are joined", field.flat_name());
            let help = "put it into WHERE, which is the same for JOIN, or join the table of the subquery as well";
            return Diagnostic::error(code::SUBQUERY, &file.path, message).at(Some(place)).help(help);
        }
        return unknown_column(file, field, valid_fields, place);
    }
    let text = first_line(&root.strip_backtrace());
    if let Some(name) =
        between(&text, "table '", "' not found").or_else(|| between(&text, "table function '", "' not found"))
    {
        return unknown_table(file, name, scope, place);
    }
    if let Some(name) = between(&text, "Invalid function '", "'") {
        return unknown_function(file, name, scope, place);
    }
    for (separator, code) in [(WINDOW_TABLE_HELP, code::TUMBLE), (PATTERN_HELP, code::PATTERN)] {
        if let Some((message, help)) =
            text.strip_prefix("Error during planning: ").and_then(|text| text.split_once(separator))
        {
            return Diagnostic::error(code, &file.path, message).at(place).help(help);
        }
    }
    if let Some(mistake) = not_grouped(file, &text).or_else(|| text_as_number(file, &text)) {
        let span = mistake.span.clone().or(place).or_else(|| anchors.place(&Anchor::Query));
        let mistake = mistake.at(span);
        return mistake;
    }
    let span = place.or_else(|| anchors.place(&Anchor::Query));
    let help = error.diagnostic().and_then(|diagnostic| help_of(diagnostic, &file.text));
    let message = text.strip_prefix("Error during planning: ").unwrap_or(&text);
    Diagnostic::error(code::PLANNING, &file.path, message).at(span).help_if(help)
}

/// A column beside aggregates that is no group.
fn not_grouped(file: &RuleFile, text: &str) -> Option<Diagnostic> {
    let column = text.contains("must appear in the GROUP BY").then(|| between(text, "column \"", "\""))??;
    let name = column.rsplit('.').next().unwrap_or(column);
    let help = format!(
        "group by all columns that are not aggregated: `GROUP BY {name}, …`, in a window with `window_start, window_end`; or aggregate it: `max({name})`"
    );
    let mistake = Diagnostic::error(code::PLANNING, &file.path, format!("`{name}` is neither grouped nor aggregated"));
    Some(mistake.at(word_in_query(&file.text, name)).help(help))
}

/// Arithmetic with a text, as a parameter in quotes is one.
fn text_as_number(file: &RuleFile, text: &str) -> Option<Diagnostic> {
    let types =
        text.contains("Cannot coerce arithmetic").then(|| between(text, "expression ", " to valid types"))??;
    let message = format!("{types}: a text is no number");
    let help = "a parameter of `params` that is a number stands without quotes: `upper_pct = 7.0`; a column that is a text, `TRY_CAST(x AS DECIMAL(12, 6))`";
    let mistake = Diagnostic::error(code::PLANNING, &file.path, message);
    types.contains("Utf8").then(|| mistake.help(help))
}

fn help_of(diagnostic: &PlanDiagnostic, text: &str) -> Option<String> {
    let about = |message: &str, span: Option<Span>| match span.and_then(|span| plan_span_in(text, span)) {
        Some(span) => format!("`{}` {message}", &text[span]),
        None => message.to_owned(),
    };
    let helps = diagnostic.helps.iter().map(|help| about(&help.message, help.span));
    let notes = diagnostic.notes.iter().map(|note| about(&note.message, note.span));
    let all: Vec<String> = helps.chain(notes).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_start_matches("type_coercion\ncaused by\n").to_owned()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let end = text[start..].find(after)?;
    Some(&text[start..start + end])
}

fn unknown_column(file: &RuleFile, field: &Column, valid: &[Column], place: Option<Range<usize>>) -> Diagnostic {
    let qualified = |column: &Column| column.relation.as_ref() == field.relation.as_ref();
    let mut near: Vec<&str> = valid.iter().filter(|c| qualified(c)).map(|c| c.name.as_str()).collect();
    let all: Vec<&str> = valid.iter().map(|c| c.name.as_str()).collect();
    // A name by itself may be of any table.
    if field.relation.is_none() || near.is_empty() {
        near = all;
    }
    let candidates = &near;
    let longer = candidates.iter().filter(|name| name.starts_with(field.name.as_str())).min_by_key(|name| name.len());
    let help = longer.copied().or_else(|| nearest(&field.name, candidates.iter().copied())).map_or_else(
        || {
            let mut names = candidates.clone();
            names.retain(|name| !name.starts_with('_'));
            names.truncate(12);
            format!("the columns here are {}", names.join(", "))
        },
        |right| format!("write `{right}`"),
    );
    let table = field.relation.as_ref().map(|table| format!(" in `{table}`")).unwrap_or_default();
    Diagnostic::error(code::UNKNOWN_COLUMN, &file.path, format!("there is no column `{}`{table}", field.name))
        .at(place)
        .help(help)
}

fn unknown_table(file: &RuleFile, name: &str, scope: &Scope, place: Option<Range<usize>>) -> Diagnostic {
    let names = scope.table_names();
    let place = place.or_else(|| word_in_query(&file.text, name));
    let is_function = place.as_ref().is_some_and(|span| file.text[span.clone()].contains('('))
        || !names.contains(&name) && file.text.to_lowercase().contains(&format!("{}(", name.to_lowercase()));
    let (message, help) = if is_function {
        (
            format!("there is no table function `{name}`"),
            "write `TUMBLE(stream, ts, INTERVAL '10 minutes')`: it is the one window function".to_owned(),
        )
    } else {
        let help = nearest(name, names.iter().copied())
            .map_or_else(|| format!("there are {}", names.join(", ")), |right| format!("write `{right}`"));
        (format!("there is no stream, reference table or rule `{name}`"), help)
    };
    Diagnostic::error(code::UNKNOWN_TABLE, &file.path, message).at(place).help(help)
}

fn unknown_function(file: &RuleFile, name: &str, scope: &Scope, place: Option<Range<usize>>) -> Diagnostic {
    use datafusion::logical_expr::planner::ContextProvider;

    let mut names = scope.udf_names();
    names.extend(scope.udaf_names());
    names.sort();
    let help = nearest(name, names.iter().map(String::as_str)).map(|right| format!("write `{right}`"));
    Diagnostic::error(code::UNKNOWN_FUNCTION, &file.path, format!("there is no function `{name}`"))
        .at(place.or_else(|| word_in_query(&file.text, name)))
        .help_if(help.or_else(|| Some("the functions are those of DataFusion and wattline's own".to_owned())))
}

/// The first place after the header where `word` stands alone.
fn word_in_query(text: &str, word: &str) -> Option<Range<usize>> {
    let body = text.find("---*/").map_or(0, |at| at + 5);
    let lower = text.to_ascii_lowercase();
    let word = word.to_ascii_lowercase();
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let found = lower[body..]
        .match_indices(&word)
        .map(|(at, _)| body + at..body + at + word.len())
        .find(|span| !part(lower[..span.start].chars().next_back()) && !part(lower[span.end..].chars().next()));
    found.map(|span| balance(text, span))
}
