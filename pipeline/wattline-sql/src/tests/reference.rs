//! The reference page and the functions: each is in it, and its examples give what it says.

use std::fs;
use std::path::Path;

use crate::functions::{aggregate_functions, scalar_functions, window_functions};
use crate::test_run::text_rows;

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rules.md")).expect("the page")
}

#[test]
fn every_function_is_in_the_reference() {
    let page = page();
    let scalar = scalar_functions().into_iter().map(|function| function.name().to_owned());
    let aggregate = aggregate_functions().into_iter().map(|function| function.name().to_owned());
    let window = window_functions().into_iter().map(|function| function.name().to_owned());
    for name in scalar.chain(aggregate).chain(window) {
        assert!(page.contains(&format!("`{name}(")), "docs/rules.md says nothing of `{name}`");
    }
}

#[tokio::test]
async fn examples_give_what_the_reference_says() {
    let (page, context) = (page(), crate::query::query_context(&Default::default()).expect("no function of its own"));
    for (example, says) in [
        ("tiered_amount(0, 450, [210, 400], [0.5469, 0.5969, 0.8469])", "270.61"),
        ("mask('13812345678', 3, 4)", "138****5678"),
    ] {
        assert!(page.contains(example) && page.contains(says), "docs/rules.md has no example {example}");
        let frame = crate::query::query(&context, &format!("SELECT {example} AS x")).await.expect("plans");
        let rows = text_rows(&frame.collect().await.expect("runs")[0]).expect("printable");
        assert_eq!(rows, [format!("x={says}")]);
    }
    for (call, gives) in [
        ("register_delta_kwh(999998.50, 3.20, 6)", "4.7000"),
        ("register_delta_kwh(5000, 4990, 6)", "null"),
        ("register_delta_kwh(12345.67, 12350.12, 6)", "4.4500"),
        ("tiered_amount(2400, 300, [2520, 4800], [0.5469, 0.5969, 0.8469])", "173.07"),
        ("tiered_amount(0, 10, [], [0.5])", "5.00"),
        ("tiered_amount(0, CAST(NULL AS INT), [210], [1, 2])", "null"),
        (
            "add_working_days(DATE '2026-09-28', 5, [DATE '2026-10-01', DATE '2026-10-02', DATE '2026-10-05', DATE '2026-10-06', DATE '2026-10-07'])",
            "2026-10-12",
        ),
        (
            "working_days_between(DATE '2026-09-28', DATE '2026-10-13', [DATE '2026-10-01', DATE '2026-10-02', DATE '2026-10-05', DATE '2026-10-06', DATE '2026-10-07'])",
            "6",
        ),
    ] {
        let frame = crate::query::query(&context, &format!("SELECT {call} AS x")).await.expect("plans");
        let rows = text_rows(&frame.collect().await.expect("runs")[0]).expect("printable");
        assert_eq!(rows, [format!("x={gives}")], "{call}");
    }
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
