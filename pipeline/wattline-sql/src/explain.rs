//! What a rule does, for people: where its rows come from, what is kept, when a row is final.

use std::fmt::Write;

use datafusion::common::JoinType;
use wattline_core::time::HumanDuration;

use crate::operators::{AggregateSpec, Keep, Operator, OverFunction, OverSpec, RefJoinKind};
use crate::planner::{Hold, Node};
use crate::rule_file::Delivery;
use crate::rule_set::{CompiledRule, RuleSet};

/// The text of `wattline explain <rule>`; `None` if there is no such rule.
#[must_use]
pub fn explain(set: &RuleSet, rule: &str) -> Option<String> {
    let (_, rule) = set.rule(rule)?;
    let mut text = String::new();
    write_all(&mut text, set, rule).ok()?;
    Some(text)
}

fn write_all(text: &mut String, set: &RuleSet, rule: &CompiledRule) -> std::fmt::Result {
    let header = &rule.header;
    writeln!(text, "{} ({})", header.id, header.title)?;
    writeln!(text, "  reads      {}", rule.streams.join(", "))?;
    writeln!(text, "  delay      {}", HumanDuration(rule.delay_ms))?;
    writeln!(text, "  final      {}", rule.final_at)?;
    if let Some(reach_us) = rule.reach_us {
        let reach = HumanDuration(reach_us / 1_000);
        writeln!(
            text,
            "  late       events beyond the delay correct results; {reach} before and after them are computed again"
        )?;
    }
    if let Some(backfill_ms) = header.backfill_ms {
        let depth = HumanDuration(backfill_ms);
        writeln!(
            text,
            "  backfill   {depth} of the archive, if it is new to a job with a past; marked, and told only of alerts that are open"
        )?;
    }
    if header.delivery == Delivery::LowLatency {
        writeln!(text, "  delivery   before its tick is committed: at least once, with the same id")?;
    }
    writeln!(text, "  keeps      {}", kept(rule))?;
    writeln!(text, "  plan id    {}", rule.fingerprint)?;
    writeln!(text, "  gives")?;
    for (at, field) in rule.output_schema.fields().iter().enumerate() {
        writeln!(text, "    {:<24} {}{}", field.name(), field.data_type(), role(rule, at))?;
    }
    for (number, feed) in (1..).zip(&rule.plan.feeds) {
        match rule.plan.feeds.len() {
            1 => writeln!(text, "  steps in each lane")?,
            _ => writeln!(text, "  steps in each lane of {}, feed {number}", feed.stream)?,
        }
        writeln!(text, "    read {} columns", feed.columns.len())?;
        write_steps(text, &feed.steps)?;
        write_hold(text, set, rule, number - 1)?;
    }
    if !matches!(rule.plan.root, Node::Feed(_)) {
        writeln!(text, "  steps on final rows")?;
        write_node(text, &rule.plan.root, rule.plan.feeds.len() > 1)?;
    }
    writeln!(text, "  logical plan")?;
    for line in rule.plan.optimized.display_indent().to_string().lines() {
        writeln!(text, "    {line}")?;
    }
    Ok(())
}

fn write_hold(text: &mut String, set: &RuleSet, rule: &CompiledRule, feed: usize) -> std::fmt::Result {
    match &rule.plan.feeds[feed].hold {
        Hold::Nothing => return Ok(()),
        Hold::Windows(window) => write_window(text, window, "partial in each lane, merged once")?,
        Hold::Rows => writeln!(text, "    hold rows until the watermark has passed them, give them out in order")?,
    }
    let fingerprint = &rule.feed_fingerprints[feed];
    let state = set.states().iter().find(|state| state.fingerprint == *fingerprint);
    let ids = state.iter().flat_map(|state| &state.rules).map(|rule| set.rules()[*rule].header.id.as_str());
    let others: Vec<&str> = ids.filter(|id| *id != rule.header.id).collect();
    match others.is_empty() {
        true => Ok(()),
        false => writeln!(text, "    shared with {}", others.join(", ")),
    }
}

fn write_node(text: &mut String, node: &Node, names_feeds: bool) -> std::fmt::Result {
    match node {
        Node::Feed(feed) if names_feeds => writeln!(text, "    take feed {}", feed + 1),
        Node::Feed(_) => Ok(()),
        Node::Steps(input, steps) => {
            write_node(text, input, names_feeds)?;
            write_steps(text, steps)
        }
        Node::Windows(input, window) => {
            write_node(text, input, names_feeds)?;
            write_window(text, window, "over final rows")
        }
        Node::Over(input, over) => {
            write_node(text, input, names_feeds)?;
            let names: Vec<&str> = over.schema.fields()[over.input_schema.fields().len()..]
                .iter()
                .map(|field| field.name().as_str())
                .collect();
            writeln!(text, "    compute {}", names.join(", "))?;
            writeln!(text, "      keeping {}", kept_of_partition(over))
        }
        Node::Sessions(input, session) => {
            write_node(text, input, names_feeds)?;
            let gap = HumanDuration(session.gap_us / 1_000);
            writeln!(text, "    sessions without a pause of {gap}")?;
            writeln!(text, "      keeping the rows of open sessions")
        }
        Node::Patterns(input, spec) => {
            write_node(text, input, names_feeds)?;
            let bound = HumanDuration(spec.pattern.bound_us / 1_000);
            writeln!(text, "    match {}", spec.pattern)?;
            writeln!(text, "      keeping the rows of a match that can still go on, {bound} at most")
        }
        Node::Join(left, right, join) => {
            write_node(text, left, names_feeds)?;
            write_node(text, right, names_feeds)?;
            let (left, right) = (kept_for(join.left.kept_us), kept_for(join.right.kept_us));
            writeln!(text, "    {}", join_in_words(join.kind))?;
            writeln!(text, "      keeping left rows for {left}, right rows for {right} after their time")
        }
        Node::Union(inputs, _) => {
            inputs.iter().try_for_each(|input| write_node(text, input, names_feeds))?;
            writeln!(text, "    put the rows of {} inputs together", inputs.len())
        }
    }
}

fn join_in_words(kind: JoinType) -> &'static str {
    match kind {
        JoinType::LeftMark => "mark left rows with a partner on the right",
        JoinType::LeftSemi => "keep left rows with a partner on the right",
        JoinType::RightSemi => "keep right rows with a partner on the left",
        JoinType::LeftAnti => "keep left rows without a partner on the right",
        JoinType::RightAnti => "keep right rows without a partner on the left",
        JoinType::Left => "join left and right, keep left rows without a partner too",
        JoinType::Right => "join left and right, keep right rows without a partner too",
        JoinType::Full => "join left and right, keep rows without a partner of both",
        _ => "join left and right",
    }
}

fn kept_for(us: i64) -> HumanDuration {
    HumanDuration(us.max(0) / 1_000)
}

fn kept_of_partition(over: &OverSpec) -> String {
    let Keep { first, last, within_us } = over.keep;
    let mut kept = vec!["the rows that wait".to_owned()];
    kept.extend((first > 0).then(|| format!("the first {first}")));
    kept.extend((last > 0).then(|| format!("the last {last}")));
    kept.extend(within_us.map(|us| format!("those of the last {}", HumanDuration(us / 1_000))));
    let counts = over.functions.iter().any(|function| !matches!(function, OverFunction::Framed(_)));
    kept.extend(counts.then(|| "counts and sums from the first row on".to_owned()));
    format!("{} of each partition", kept.join(", "))
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

/// What a rule keeps, in words.
#[must_use]
pub fn kept(rule: &CompiledRule) -> String {
    let mut kept: Vec<String> = Vec::new();
    for feed in &rule.plan.feeds {
        kept.extend(match &feed.hold {
            Hold::Nothing => None,
            Hold::Windows(window) => Some(groups_of(window)),
            Hold::Rows => Some("the rows between the watermark and the newest event".to_owned()),
        });
    }
    if rule.plan.root.keeps_state() {
        kept.push("what the steps on final rows keep".to_owned());
    }
    kept.dedup();
    if kept.is_empty() { "nothing".to_owned() } else { kept.join("; ") }
}

fn groups_of(window: &AggregateSpec) -> String {
    if window.keys.is_empty() {
        return "one group per open window".to_owned();
    }
    let names: Vec<&str> = window.key_schema.fields().iter().map(|field| field.name().as_str()).collect();
    format!("one group per open window and {}", names.join(", "))
}

fn write_steps(text: &mut String, steps: &[Operator]) -> std::fmt::Result {
    for step in steps {
        match step {
            Operator::Filter(predicate) => writeln!(text, "    keep where {predicate}")?,
            Operator::Project { schema, .. } => {
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                writeln!(text, "    compute {}", names.join(", "))?;
            }
            Operator::Unnest(_) => writeln!(text, "    a row for each item of a list")?,
            Operator::RefJoin(join) => {
                let kind = match join.kind {
                    RefJoinKind::Inner => "join",
                    RefJoinKind::KeepStream => "left join",
                    RefJoinKind::Semi => "keep if found in",
                    RefJoinKind::Anti => "keep if not found in",
                    RefJoinKind::Mark => "mark if found in",
                };
                writeln!(text, "    {kind} {} reference rows in memory", join.table.num_rows())?;
            }
        }
    }
    Ok(())
}

fn write_window(text: &mut String, window: &AggregateSpec, how: &str) -> std::fmt::Result {
    let size = HumanDuration(window.size_us / 1_000);
    writeln!(text, "    window of {size}, {how}")?;
    if let Some(paned) = window.paned {
        writeln!(text, "      merged from panes of {}", HumanDuration(paned.pane_us / 1_000))?;
    }
    for aggregate in &window.aggregates {
        writeln!(text, "      {}", aggregate.function.name())?;
    }
    Ok(())
}
