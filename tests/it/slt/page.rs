//! A page of Markdown as a suite: its blocks of SQL, and what stands right below them.
//!
//! - A block `sql` that begins with CREATE or INSERT holds statements.
//! - A block `sql` with a query has a block `text` below it: a line with the names of the columns, a line `----`, and the rows;
//! - or, if it begins with `error[`, lines that `check` says of the query.
//!
//! Every block of SQL must be one of these, so that no example of the page goes untested.

use anyhow::{Context, Result};

use super::{Record, lines};

/// A fenced block; the lines that its text begins and its fence ends at, counted from 1.
#[derive(Debug)]
struct Block {
    language: String,
    text: String,
    begins: usize,
    ends: usize,
}

/// The records of a page, each with the line where its SQL begins.
pub(super) fn records(page: &str) -> Vec<(usize, Result<Record>)> {
    let blocks = blocks(page);
    let nexts = blocks.iter().skip(1).map(Some).chain([None]);
    let sql = blocks.iter().zip(nexts).filter(|(block, _)| block.language == "sql");
    sql.map(|(block, next)| (block.begins, record_of(block, next))).collect()
}

fn record_of(block: &Block, next: Option<&Block>) -> Result<Record> {
    let sql = block.text.clone();
    if ["CREATE", "INSERT"].iter().any(|word| sql.starts_with(word)) {
        return Ok(Record::Statements(sql));
    }
    let below = next.filter(|next| next.language == "text" && next.begins == block.ends + 2);
    let below = &below.context("a query without a block `text` right below it")?.text;
    if below.starts_with("error[") {
        return Ok(Record::Refused { sql, says: lines(below) });
    }
    let (columns, rows) =
        below.split_once("\n----\n").context("rows without the names of their columns above `----`")?;
    let columns = columns.split_whitespace().map(str::to_owned).collect();
    Ok(Record::Query { sql, columns: Some(columns), rows: lines(rows) })
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (line, content) in (1..).zip(page.lines()) {
        match (open.take(), content.strip_prefix("```")) {
            (None, Some(language)) => {
                let language = language.to_owned();
                open = Some(Block { language, text: String::new(), begins: line + 1, ends: line });
            }
            (None, None) => {}
            (Some(block), Some(_)) => blocks.push(Block { ends: line, ..block }),
            (Some(block), None) => open = Some(Block { text: block.text + content + "\n", ..block }),
        }
    }
    blocks
}

#[test]
fn what_a_page_leaves_open_is_found() -> Result<()> {
    let page =
        "# Page\n```sql\nSELECT 1\n```\ntext\n```text\na\n----\n1\n```\n```sql\nSELECT 2\n```\n```text\n2\n```\n";
    let offences: Vec<(usize, String)> =
        records(page).into_iter().filter_map(|(line, record)| Some((line, record.err()?.to_string()))).collect();
    let lines: Vec<usize> = offences.iter().map(|(line, _)| *line).collect();
    anyhow::ensure!(lines == [3, 12], "{offences:?}");
    Ok(())
}
