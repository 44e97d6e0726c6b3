//! What a rule does, for people: where its rows come from, what is kept, when a row is final.

use std::fmt::Write;

use wattline_core::time::HumanDuration;

use crate::operators::{AggregateSpec, Operator, RefJoinKind};
use crate::rule_set::{CompiledRule, RuleSet};

/// The text of `wattline explain <rule>`; `None` if there is no such rule.
#[must_use]
pub fn explain(set: &RuleSet, rule: &str) -> Option<String> {
    let (_, rule) = set.rule(rule)?;
    let mut text = String::new();
    write_all(&mut text, rule).ok()?;
    Some(text)
}

fn write_all(text: &mut String, rule: &CompiledRule) -> std::fmt::Result {
    let header = &rule.header;
    writeln!(text, "{} ({})", header.id, header.title)?;
    writeln!(text, "  reads      {}", rule.stream)?;
    writeln!(text, "  delay      {}", HumanDuration(rule.delay_ms))?;
    writeln!(text, "  final      {}", rule.final_at)?;
    writeln!(text, "  keeps      {}", kept(rule))?;
    writeln!(text, "  plan id    {}", rule.fingerprint)?;
    writeln!(text, "  gives")?;
    for (at, field) in rule.output_schema.fields().iter().enumerate() {
        writeln!(text, "    {:<24} {}{}", field.name(), field.data_type(), role(rule, at))?;
    }
    writeln!(text, "  steps in each lane")?;
    writeln!(text, "    read {} columns", rule.plan.columns.len())?;
    write_steps(text, &rule.plan.lane)?;
    if let Some(window) = &rule.plan.window {
        write_window(text, window)?;
    }
    writeln!(text, "  logical plan")?;
    for line in rule.plan.optimized.display_indent().to_string().lines() {
        writeln!(text, "    {line}")?;
    }
    if !rule.plan.tail.is_empty() {
        writeln!(text, "  steps on final rows")?;
        write_steps(text, &rule.plan.tail)?;
    }
    Ok(())
}

fn role(rule: &CompiledRule, column: usize) -> &'static str {
    if column == rule.event_time_column {
        "   event time"
    } else if rule.entity_columns.contains(&column) {
        "   entity"
    } else if Some(column) == rule.firing_column {
        "   condition"
    } else {
        ""
    }
}

fn kept(rule: &CompiledRule) -> String {
    match &rule.plan.window {
        Some(window) if window.keys.is_empty() => "one group per open window".to_owned(),
        Some(window) => {
            let names: Vec<&str> = window.key_schema.fields().iter().map(|field| field.name().as_str()).collect();
            format!("one group per open window and {}", names.join(", "))
        }
        None if rule.ordered => "the rows between the watermark and the newest event".to_owned(),
        None => "nothing".to_owned(),
    }
}

fn write_steps(text: &mut String, steps: &[Operator]) -> std::fmt::Result {
    for step in steps {
        match step {
            Operator::Filter(predicate) => writeln!(text, "    keep where {predicate}")?,
            Operator::Project { schema, .. } => {
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                writeln!(text, "    compute {}", names.join(", "))?;
            }
            Operator::RefJoin(join) => {
                let kind = match join.kind {
                    RefJoinKind::Inner => "join",
                    RefJoinKind::KeepStream => "left join",
                    RefJoinKind::Semi => "keep if found in",
                    RefJoinKind::Anti => "keep if not found in",
                };
                writeln!(text, "    {kind} {} reference rows in memory", join.table.num_rows())?;
            }
        }
    }
    Ok(())
}

fn write_window(text: &mut String, window: &AggregateSpec) -> std::fmt::Result {
    let size = HumanDuration(window.size_us / 1_000);
    writeln!(text, "  window of {size}, partial in each lane, merged once")?;
    for aggregate in &window.aggregates {
        writeln!(text, "    {}", aggregate.function.name())?;
    }
    Ok(())
}
