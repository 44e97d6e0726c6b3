//! Compiled rules as the runtime sees them: what a rule is called, when it is final, where its rows go, and what it keeps.

use std::sync::Arc;

use wattline_core::alert::{AlertRule, Severity};
use wattline_core::record::column;
use wattline_runtime::alerting::AlertPlan;
use wattline_runtime::table::TableSpec;
use wattline_runtime::{BackfillPlan, CorrectionPlan, RulePlan, StatePlan, backfilled_schema, corrected_schema};
use wattline_sql::{CompiledRule, Delivery, RuleKind, RuleSet, RuleSeverity, SharedState};

/// What the runtime must know of the compiled rules.
pub(crate) fn rule_plans(rules: &RuleSet, streams: &[String]) -> Vec<RulePlan> {
    rules
        .rules()
        .iter()
        .enumerate()
        .map(|(number, rule)| RulePlan {
            id: rule.header.id.clone(),
            version: rule.header.version.clone(),
            fingerprint: rule.fingerprint.clone(),
            streams: rule.streams.iter().map(|of| number_of(streams, of)).collect(),
            delay_ms: rule.delay_ms,
            span_us: rule.span_us,
            table: (rule.header.kind == RuleKind::Table).then(|| result_table(rule)),
            alert: (rule.header.kind == RuleKind::Alert).then(|| alert_plan(rule)),
            correction: rule
                .reach_us
                .map(|reach_us| CorrectionPlan { reach_us, columns: rule.columns_read(rules.catalog()) }),
            backfill: rule.header.backfill_ms.map(|ms| BackfillPlan {
                depth_us: ms.saturating_mul(1_000),
                columns: rule.columns_read(rules.catalog()),
                states: rules.states_of(number),
            }),
        })
        .collect()
}

fn number_of(streams: &[String], name: &str) -> usize {
    streams.iter().position(|stream| stream == name).expect("the catalog of the rules has the streams of the job only")
}

/// The keyed states of the compiled rules.
pub(crate) fn state_plans(rules: &RuleSet, streams: &[String]) -> Vec<StatePlan> {
    let plan = |(state, of): (usize, &SharedState)| StatePlan {
        fingerprint: of.fingerprint.clone(),
        rules: of.rules.clone(),
        stream: number_of(streams, rules.stream_of_state(state)),
    };
    rules.states().iter().enumerate().map(plan).collect()
}

fn column_name(rule: &CompiledRule, at: usize) -> String {
    rule.output_schema.field(at).name().clone()
}

/// The table of a rule that is one.
pub(crate) fn result_table(rule: &CompiledRule) -> TableSpec {
    let event_time = column_name(rule, rule.event_time_column);
    let mut sort_by: Vec<String> = rule.header.key.clone();
    if sort_by.is_empty() {
        let mut sortable = rule.output_schema.fields().iter().filter(|field| !field.data_type().is_nested());
        let first = sortable.find(|field| *field.name() != event_time);
        sort_by.extend(first.map(|field| field.name().clone()));
    }
    sort_by.retain(|name| *name != event_time && *name != column::EVENT_DATE);
    sort_by.push(event_time.clone());
    let schema = match rule.reach_us {
        Some(_) => corrected_schema(&rule.output_schema),
        None => Arc::clone(&rule.output_schema),
    };
    TableSpec {
        name: rule.header.id.clone(),
        description: rule.header.title.clone(),
        schema: match rule.header.backfill_ms {
            Some(_) => backfilled_schema(&schema),
            None => schema,
        },
        event_time,
        sort_by,
    }
}

fn alert_plan(rule: &CompiledRule) -> AlertPlan {
    let header = &rule.header;
    let standard = header.standard.as_ref().map(|standard| match &header.clause {
        Some(clause) => format!("{standard}, {clause}"),
        None => standard.clone(),
    });
    AlertPlan {
        rule: AlertRule {
            id: header.id.clone(),
            version: header.version.clone(),
            title: header.title.clone(),
            title_zh: header.title_zh.clone(),
            severity: match header.severity {
                RuleSeverity::Info => Severity::Info,
                RuleSeverity::Warning => Severity::Warning,
                RuleSeverity::Critical => Severity::Critical,
            },
            standard,
            category: header.category.clone().unwrap_or_else(|| "general".to_owned()),
            unit: header.unit.clone(),
            runbook: header.runbook.clone(),
            resolve_after: header.resolve_after,
            renotify_ms: header.renotify_ms,
        },
        entity: rule.entity_columns.iter().map(|at| column_name(rule, *at)).collect(),
        event_time: column_name(rule, rule.event_time_column),
        is_condition: rule.firing_column.is_some(),
        corrected: rule.reach_us.is_some(),
        early: header.delivery == Delivery::LowLatency,
    }
}
