//! The page of the shipped streams says what their schemas say: every stream, every field, in the order of the schema.
//!
//! The rows of its tables are made anew out of `schemas/*.avsc` and compared as text, so that a field, type, unit or mark that one of
//! the two lacks is named.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::tree;

const PAGE: &str = "docs/streams.md";

/// The schemas by stream.
fn schemas() -> Result<Vec<(String, Value)>> {
    let mut schemas = Vec::new();
    for entry in fs::read_dir(tree::root()?.join("schemas"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "avsc") {
            let schema: Value =
                serde_json::from_str(&fs::read_to_string(&path)?).context(path.display().to_string())?;
            schemas.push((text(&schema, "name")?.to_owned(), schema));
        }
    }
    Ok(schemas)
}

fn text<'a>(of: &'a Value, name: &str) -> Result<&'a str> {
    of[name].as_str().with_context(|| format!("no `{name}` in {of}"))
}

/// The type of a field, and whether it may be absent.
fn inner(of: &Value) -> Result<(&Value, bool)> {
    match of.as_array() {
        Some(union) => {
            let of = union.iter().find(|of| *of != "null").with_context(|| format!("only null in {union:?}"))?;
            Ok((of, true))
        }
        None => Ok((of, false)),
    }
}

/// A type as the page calls it.
fn type_name(of: &Value) -> Result<String> {
    let of = inner(of)?.0;
    Ok(match (of["logicalType"].as_str(), of.as_str().or_else(|| of["type"].as_str())) {
        (Some("decimal"), _) => format!("decimal({},{})", of["precision"], of["scale"]),
        (Some("timestamp-micros" | "timestamp-millis"), _) => "timestamp".to_owned(),
        (Some(other), _) => other.to_owned(),
        (None, Some("array")) => format!("array of {}", type_name(&of["items"])?),
        (None, Some("map")) => format!("map of {}", type_name(&of["values"])?),
        (None, Some("enum")) => "string".to_owned(),
        (None, Some("int")) => "integer".to_owned(),
        (None, plain) => plain.with_context(|| format!("no type in {of}"))?.to_owned(),
    })
}

/// The row of a field in the table of its stream.
fn row(field: &Value) -> Result<String> {
    let (of, may_be_absent) = inner(&field["type"])?;
    let confidential = field["confidential"].as_str().map(|why| format!("confidential: {why}"));
    let required = (!may_be_absent).then(|| "required".to_owned());
    let marks: Vec<String> = required.into_iter().chain(confidential).collect();
    let mut meaning = text(field, "doc")?.trim_end_matches('.').to_owned();
    if let Some(symbols) = of["symbols"].as_array() {
        let symbols: Vec<String> = symbols.iter().filter_map(Value::as_str).map(|one| format!("`{one}`")).collect();
        meaning.push_str(&format!(". One of {}", symbols.join(", ")));
    }
    let name = format!("`{}`", text(field, "name")?);
    let unit = field["unit"].as_str().unwrap_or_default();
    let cells = [name, type_name(of)?, unit.to_owned(), marks.join(", "), meaning];
    let cell = |cell: &String| if cell.is_empty() { " |".to_owned() } else { format!(" {cell} |") };
    Ok(format!("|{}", cells.iter().map(cell).collect::<String>()))
}

/// The rows about things with a name that begin so, within a part of the page.
fn rows<'a>(part: &'a str, begin: &str) -> Vec<&'a str> {
    part.lines().filter(|line| line.starts_with(begin)).collect()
}

#[test]
fn the_page_lists_every_field_of_every_stream() -> Result<()> {
    let page = fs::read_to_string(tree::root()?.join(PAGE))?;
    let schemas = schemas()?;
    ensure!(!schemas.is_empty(), "there is no schema");
    let mut offences = Vec::new();
    for (stream, schema) in &schemas {
        let part = page.split("\n## ").find(|part| part.lines().next() == Some(stream.as_str()));
        let part = part.with_context(|| format!("{PAGE} has no part `{stream}`"))?;
        let fields = schema["fields"].as_array().with_context(|| format!("`{stream}` has no fields"))?;
        let said = fields.iter().map(row).collect::<Result<Vec<_>>>()?;
        let listed = rows(part, "| `");
        let missing = said.iter().filter(|row| !listed.contains(&row.as_str()));
        offences.extend(missing.map(|row| format!("{stream} lacks  {row}")));
        let unknown = listed.iter().filter(|row| !said.iter().any(|said| said == *row));
        offences.extend(unknown.map(|row| format!("{stream} has    {row}")));
        if listed.len() == said.len() && listed.iter().ne(&said) {
            offences.push(format!("{stream} has its fields in another order than the schema"));
        }
    }
    ensure!(offences.is_empty(), "{PAGE} is not what the schemas say:\n  {}", offences.join("\n  "));
    Ok(())
}

#[test]
fn the_page_names_every_stream_and_no_other() -> Result<()> {
    let page = fs::read_to_string(tree::root()?.join(PAGE))?;
    let mut said = BTreeSet::new();
    for (stream, schema) in schemas()? {
        let key = schema["key"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let key: Vec<String> = key.map(|name| format!("`{name}`")).collect();
        said.insert(format!("[`{stream}`](#{stream}) `{}` {}", text(&schema, "event_time")?, key.join(", ")));
    }
    let mut listed = BTreeSet::new();
    for row in rows(&page, "| [`") {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [stream, _event, time, key] = cells[..] else { bail!("{PAGE}: {row}") };
        listed.insert(format!("{stream} {time} {key}"));
    }
    ensure!(listed == said, "{PAGE} and the schemas differ in {:?}", listed.symmetric_difference(&said));
    Ok(())
}
