//! What a rule gives out: column types the archive can hold, and the columns its kind owes.
//!
//! Streams carry system columns (`_topic` …) through `SELECT *`; they are left out of the output, because the
//! identity of an event travels beside its row. Types are widened to what every reader of the archive knows:
//! no unsigned integers, no text views or dictionaries, instants in microseconds UTC.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast};

use crate::catalog::{SYSTEM_COLUMNS, event_time_type};
use crate::diagnostic::{code, nearest};
use crate::logical::{Anchor, Refusal, contains_aggregate, streams_of, time_of_output};
use crate::rule_file::{RuleHeader, RuleKind};

/// The column positions that the alert lifecycle and the tables need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutputColumns {
    pub(crate) event_time: usize,
    pub(crate) entity: Vec<usize>,
    pub(crate) firing: Option<usize>,
}

/// Projects an analysed plan to archive types and plain names.
///
/// # Errors
/// Every column that cannot be held.
pub(crate) fn project_for_archive(plan: LogicalPlan) -> std::result::Result<Result<LogicalPlan>, Vec<Refusal>> {
    let mut refusals = Vec::new();
    let mut names = BTreeSet::new();
    let mut exprs = Vec::new();
    for (at, (column, field)) in plan.schema().columns().into_iter().zip(plan.schema().fields()).enumerate() {
        let name = field.name().as_str();
        if SYSTEM_COLUMNS.contains(&name) {
            continue;
        }
        if let Err(refusal) = check_name(name, at, &mut names) {
            refusals.push(refusal);
            continue;
        }
        match archive_type(field.data_type()) {
            Ok(wanted) if wanted == *field.data_type() => exprs.push(Expr::Column(column).alias(name)),
            Ok(wanted) => exprs.push(cast(Expr::Column(column), wanted).alias(name)),
            Err(help) => refusals.push(Refusal::new(
                code::OUTPUT_TYPE,
                Anchor::Output(name.to_owned(), at),
                format!("column `{name}` has type {}, which the archive does not hold", field.data_type()),
                help,
            )),
        }
    }
    if exprs.is_empty() && refusals.is_empty() {
        refusals.push(Refusal::new(
            code::OUTPUT_NAME,
            Anchor::Query,
            "the query selects no column of its own",
            "select the columns that the result should hold",
        ));
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    Ok(LogicalPlanBuilder::from(plan).project(exprs).and_then(LogicalPlanBuilder::build))
}

fn check_name(name: &str, at: usize, seen: &mut BTreeSet<String>) -> std::result::Result<(), Refusal> {
    let anchor = || Anchor::Output(name.to_owned(), at);
    if name.starts_with('_') {
        let help = "give it a name without the underscore: `… AS name`";
        return Err(Refusal::new(code::OUTPUT_NAME, anchor(), format!("the name `{name}` is reserved"), help));
    }
    let plain = name.starts_with(|c: char| c.is_alphabetic()) && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if !plain {
        let help = "give it a name: `… AS name` (letters, digits, `_`)";
        return Err(Refusal::new(
            code::OUTPUT_NAME,
            anchor(),
            format!("the column `{name}` has no name of its own"),
            help,
        ));
    }
    if !seen.insert(name.to_lowercase()) {
        let help = "give one of them another name: `… AS name`";
        return Err(Refusal::new(code::OUTPUT_NAME, anchor(), format!("two columns are called `{name}`"), help));
    }
    Ok(())
}

/// The type a column is stored with, or what to write instead.
fn archive_type(data_type: &DataType) -> std::result::Result<DataType, String> {
    Ok(match data_type {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32
        | DataType::Utf8
        | DataType::Binary => data_type.clone(),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Dictionary(_, value) => archive_type(value)?,
        DataType::Timestamp(_, Some(_)) => event_time_type(),
        DataType::Timestamp(_, None) => {
            return Err("say which instant it is: `… AT TIME ZONE 'UTC'`".to_owned());
        }
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => decimal(*p, *s)?,
        DataType::Decimal256(_, _) => return Err("round it: `CAST(… AS DECIMAL(38, 6))`".to_owned()),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            let item = Field::new("element", archive_type(item.data_type())?, true);
            DataType::List(item.into())
        }
        DataType::Struct(fields) => {
            let fields = fields
                .iter()
                .map(|field| Ok(Field::new(field.name(), archive_type(field.data_type())?, true)))
                .collect::<std::result::Result<Vec<_>, String>>()?;
            DataType::Struct(fields.into())
        }
        DataType::Null => return Err("give it a type: `CAST(NULL AS DOUBLE)`".to_owned()),
        DataType::Duration(_) | DataType::Interval(_) => {
            return Err("store seconds: `extract(epoch FROM a) - extract(epoch FROM b)`".to_owned());
        }
        other => return Err(format!("cast it to a text or a number; {other} is not portable")),
    })
}

fn decimal(precision: u8, scale: i8) -> std::result::Result<DataType, String> {
    match u8::try_from(scale) {
        Ok(scale_digits) if scale_digits <= precision => Ok(DataType::Decimal128(precision, scale)),
        _ => Err("cast it to a usual decimal: `CAST(… AS DECIMAL(18, 4))`".to_owned()),
    }
}

/// Finds the columns that the rule's kind owes.
///
/// # Errors
/// Every conventional column that is missing or has another type.
pub(crate) fn find_columns(
    plan: &LogicalPlan,
    header: &RuleHeader,
) -> std::result::Result<OutputColumns, Vec<Refusal>> {
    let schema = plan.schema().as_arrow();
    let mut refusals = Vec::new();
    let event_time = time_of_output(plan);
    if event_time.is_none() {
        refusals.push(no_event_time(plan));
    }
    let entity = header.entity.iter().map(|name| column_of(schema, name)).collect::<Vec<_>>();
    for (name, found) in header.entity.iter().zip(&entity) {
        if found.is_none() && header.kind == RuleKind::Alert {
            refusals.push(no_entity(schema, name));
        }
    }
    let firing = column_of(schema, "firing").filter(|_| header.kind == RuleKind::Alert);
    let wanted = [("firing", DataType::Boolean), ("severity", DataType::Utf8), ("unit", DataType::Utf8)];
    for (name, data_type) in wanted.iter().filter(|_| header.kind == RuleKind::Alert) {
        if let Some(index) = column_of(schema, name)
            && schema.field(index).data_type() != data_type
        {
            refusals.push(wrong_type(name, index, data_type, schema.field(index).data_type()));
        }
    }
    match event_time {
        Some(event_time) if refusals.is_empty() => {
            Ok(OutputColumns { event_time, entity: entity.into_iter().flatten().collect(), firing })
        }
        _ => Err(refusals),
    }
}

fn column_of(schema: &Schema, name: &str) -> Option<usize> {
    schema.fields().iter().position(|field| field.name() == name)
}

fn no_event_time(plan: &LogicalPlan) -> Refusal {
    let time = streams_of(plan).first().map_or("ts", |source| source.stream.event_time.as_str()).to_owned();
    let help = if contains_aggregate(plan) {
        "add `window_start, window_end` to SELECT and to GROUP BY".to_owned()
    } else {
        format!("add `{time}` to SELECT")
    };
    Refusal::new(code::EVENT_TIME_COLUMN, Anchor::Query, "the output does not say when: it has no event time", help)
}

fn no_entity(schema: &Schema, name: &str) -> Refusal {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let help = nearest(name, names.iter().copied()).map_or_else(
        || format!("add `{name}` to SELECT, or name one of {} as `entity`", names.join(", ")),
        |right| format!("write `entity = \"{right}\"`, or add `{name}` to SELECT"),
    );
    let message = format!("the entity column `{name}` is not in the output");
    Refusal::new(code::ENTITY_COLUMN, Anchor::Query, message, help)
}

fn wrong_type(name: &str, at: usize, wanted: &DataType, got: &DataType) -> Refusal {
    let help = if *wanted == DataType::Boolean {
        format!("make it a condition: `… > $limit AS {name}`")
    } else {
        format!("make it a text: `CAST(… AS VARCHAR) AS {name}`")
    };
    let message = format!("column `{name}` of an alert rule is {wanted}, here it is {got}");
    Refusal::new(code::COLUMN_TYPE, Anchor::Output(name.to_owned(), at), message, help)
}
