//! One JSON value into one column.
//!
//! The cursor is behind the value afterwards, whether it fitted or not, so that the rest of the record is still checked.

use crate::column::{Column, Treatment, Unfit, Values, Zone, wrong_type};
use crate::dead_letter::Reason;
use crate::instant::DayMemory;
use crate::limits::Limits;
use crate::scan::{Cursor, Malformed};

/// What a value became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// Nothing was appended.
    Null,
    /// A value was appended; if it was an instant as text, with its zone.
    Value(Zone),
}

/// What reading a value needs besides the column.
pub(crate) struct Context<'c> {
    pub(crate) limits: &'c Limits,
    /// For strings with escapes.
    pub(crate) scratch: &'c mut String,
    /// For instants written as usual; without it no value is taken the short way.
    pub(crate) days: Option<&'c mut DayMemory>,
    /// Levels of nesting that are still allowed.
    pub(crate) depth: u8,
}

/// Reads the value at the cursor and appends it. The outer result is about the syntax, the inner about the type.
fn write_value(
    cursor: &mut Cursor<'_>,
    column: &mut Column,
    treatment: &Treatment,
    context: &mut Context<'_>,
) -> Result<Result<Written, Unfit>, Malformed> {
    if let Some(days) = &mut context.days
        && let Some((zone, end)) = column.write_usual(cursor.text().as_bytes(), cursor.at, treatment, days)
    {
        cursor.at = end;
        return Ok(Ok(Written::Value(zone)));
    }
    write_any_value(cursor, column, treatment, context)
}

/// The same for a value that need not be written as usual.
pub(super) fn write_any_value(
    cursor: &mut Cursor<'_>,
    column: &mut Column,
    treatment: &Treatment,
    context: &mut Context<'_>,
) -> Result<Result<Written, Unfit>, Malformed> {
    Ok(match cursor.peek() {
        Some(b'"') => {
            let text = cursor.string()?.resolve(context.scratch);
            match column.values {
                Values::List { .. } | Values::Map { .. } => Err(wrong_type(column.wanted())),
                _ => column.write_text(text, treatment).map(Written::Value),
            }
        }
        Some(b'-' | b'0'..=b'9') => {
            let number = cursor.number()?;
            column.write_number(number, treatment).map(|()| Written::Value(None))
        }
        Some(b'n') => cursor.literal("null").map(|()| Ok(Written::Null))?,
        Some(b't') => {
            cursor.literal("true")?;
            column.write_boolean(true).map(|()| Written::Value(None))
        }
        Some(b'f') => {
            cursor.literal("false")?;
            column.write_boolean(false).map(|()| Written::Value(None))
        }
        Some(b'[') if matches!(column.values, Values::List { .. }) => {
            write_list(cursor, column, treatment, context)?.map(|()| Written::Value(None))
        }
        Some(b'{') if matches!(column.values, Values::Map { .. }) => {
            write_map(cursor, column, context)?.map(|()| Written::Value(None))
        }
        _ => {
            cursor.skip_value(context.depth)?;
            Err(wrong_type(column.wanted()))
        }
    })
}

/// Appends a cell of text: lists and maps are written in it as JSON.
pub(crate) fn write_cell(
    column: &mut Column,
    text: &str,
    treatment: &Treatment,
    limits: &Limits,
) -> Result<Zone, Unfit> {
    if !matches!(column.values, Values::List { .. } | Values::Map { .. }) {
        return column.write_text(text, treatment);
    }
    let unfit = wrong_type(column.wanted());
    let mut context = Context { limits, scratch: &mut String::new(), days: None, depth: limits.depth_max };
    let mut cursor = Cursor::new(text);
    cursor.skip_space();
    let written = write_any_value(&mut cursor, column, treatment, &mut context).map_err(|_malformed| unfit)??;
    cursor.end().map_err(|_malformed| unfit)?;
    match written {
        Written::Value(zone) => Ok(zone),
        Written::Null => Err(unfit),
    }
}

fn write_list(
    cursor: &mut Cursor<'_>,
    column: &mut Column,
    treatment: &Treatment,
    context: &mut Context<'_>,
) -> Result<Result<(), Unfit>, Malformed> {
    let Values::List { items, .. } = &mut column.values else {
        return Ok(Err(wrong_type(column.wanted())));
    };
    let mut count = 0;
    let mut outcome = Ok(());
    let mut more = cursor.open(b']');
    while more {
        count += 1;
        if outcome.is_err() {
            cursor.skip_value(context.depth)?;
        } else if count > context.limits.list_items_max {
            outcome = Err(too_many());
            cursor.skip_value(context.depth)?;
        } else {
            outcome = write_item(cursor, items, treatment, context)?;
        }
        more = cursor.next_member(b']')?;
    }
    Ok(outcome.and_then(|()| column.close()))
}

fn write_map(
    cursor: &mut Cursor<'_>,
    column: &mut Column,
    context: &mut Context<'_>,
) -> Result<Result<(), Unfit>, Malformed> {
    let mut count = 0;
    let mut outcome = Ok(());
    let mut more = cursor.open(b'}');
    while more {
        count += 1;
        let key = cursor.name()?;
        if outcome.is_ok() {
            outcome = if count > context.limits.list_items_max {
                Err(too_many())
            } else {
                column.write_key(key.resolve(context.scratch))
            };
        }
        match &mut column.values {
            Values::Map { values, .. } if outcome.is_ok() => {
                outcome = write_item(cursor, values, &Treatment::default(), context)?;
            }
            _ => cursor.skip_value(context.depth)?,
        }
        more = cursor.next_member(b'}')?;
    }
    Ok(outcome.and_then(|()| column.close()))
}

fn write_item(
    cursor: &mut Cursor<'_>,
    items: &mut Column,
    treatment: &Treatment,
    context: &mut Context<'_>,
) -> Result<Result<(), Unfit>, Malformed> {
    Ok(match write_value(cursor, items, treatment, context)? {
        Ok(Written::Value(_)) => Ok(()),
        Ok(Written::Null) => items.write_null_item(),
        Err(unfit) => Err(unfit),
    })
}

fn too_many() -> Unfit {
    Unfit { reason: Reason::TooLarge, wanted: "within the limit of items" }
}
