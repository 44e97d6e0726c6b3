//! The reference page `docs/sql.md`: nothing that is registered or refused is without an example that is run.
//!
//! That the examples give what the page says is tested through the whole program, by `tests/it/slt.rs`.

use std::fs;
use std::path::Path;

use crate::functions::{aggregate_functions, scalar_functions, window_functions};
use crate::test_run::text_rows;

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/sql.md")).expect("the page")
}

/// The queries of the page, each with the block right below it: rows, or what `check` says.
fn examples(page: &str) -> Vec<(&str, &str)> {
    let blocks = page.split("```sql\n").skip(1).filter_map(|rest| rest.split_once("\n```\n```text\n"));
    let queries = blocks.filter(|(query, _)| !query.contains("```"));
    queries.filter_map(|(query, below)| Some((query, below.split("```").next()?))).collect()
}

fn calls(query: &str, function: &str) -> bool {
    let call = format!("{function}(");
    query.match_indices(&call).any(|(at, _)| !query[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

#[test]
fn every_function_is_called_in_an_example() {
    let page = page();
    let answered: Vec<&str> =
        examples(&page).into_iter().filter(|(_, below)| !below.starts_with("error[")).map(|(query, _)| query).collect();
    let scalar = scalar_functions().into_iter().map(|function| function.name().to_owned());
    let aggregate = aggregate_functions().into_iter().map(|function| function.name().to_owned());
    let window = window_functions().into_iter().map(|function| function.name().to_owned());
    for name in scalar.chain(aggregate).chain(window) {
        assert!(page.contains(&format!("`{name}(")), "docs/sql.md says nothing of `{name}`");
        assert!(answered.iter().any(|query| calls(query, &name)), "docs/sql.md has no example of `{name}`");
    }
}

#[test]
fn every_refusal_has_an_example() {
    let page = page();
    let refusals: Vec<&str> =
        examples(&page).into_iter().map(|(_, below)| below).filter(|below| below.starts_with("error[")).collect();
    let constants = include_str!("../diagnostic.rs").lines().filter(|line| line.trim_start().starts_with("pub const"));
    let codes = constants.filter_map(|line| line.split('"').nth(1));
    let codes: Vec<&str> = codes.filter(|code| code.starts_with("WL-22") || code.starts_with("WL-23")).collect();
    assert!(codes.len() > 20, "{codes:?}");
    for code in codes {
        let said = format!("error[{code}]");
        assert!(refusals.iter().any(|below| below.contains(&said)), "docs/sql.md has no example that gives {code}");
    }
}

#[tokio::test]
async fn an_amount_of_nothing_known_is_not_known() {
    let context = crate::query::query_context(&Default::default()).expect("no function of its own");
    let sql = "SELECT tiered_amount(0, CAST(NULL AS INT), [210], [1, 2]) AS x";
    let frame = crate::query::query(&context, sql).await.expect("plans");
    let rows = text_rows(&frame.collect().await.expect("runs")[0]).expect("printable");
    assert_eq!(rows, ["x=null"]);
}

#[tokio::test]
async fn our_aggregates_do_not_pass_over_distinct() {
    let context = crate::query::query_context(&Default::default()).expect("no function of its own");
    for call in ["plt(DISTINCT x)", "rms_mean(DISTINCT x)", "gb_percentile_95(DISTINCT x)"] {
        let sql = format!("SELECT {call} AS y FROM (VALUES (1.0), (1.0)) AS t(x)");
        let outcome = match crate::query::query(&context, &sql).await {
            Ok(frame) => frame.collect().await.map(drop).map_err(|error| error.to_string()),
            Err(mistakes) => Err(format!("{mistakes:?}")),
        };
        let refused = outcome.expect_err(call);
        assert!(refused.contains("it takes every value"), "{call}: {refused}");
    }
}
