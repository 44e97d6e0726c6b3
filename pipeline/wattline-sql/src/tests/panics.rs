//! Functions that panic: the rule stops, the others and the process go on.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{Accumulator, ColumnarValue, Volatility, create_udaf, create_udf};
use wattline_core::time::END_OF_TIME;

use super::fleet::{Lcg, compile_with_functions, lane, rule};
use super::shapes::PATIENT;
use crate::{RuleFile, UserFunctions};

const FEARED: i64 = 3;

fn look_at(values: &ArrayRef) {
    let values = values.as_primitive::<Int64Type>();
    assert!(values.iter().all(|value| value != Some(FEARED)), "a three");
}

#[derive(Debug, Default)]
struct Fussy(i64);

impl Accumulator for Fussy {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        look_at(&values[0]);
        self.0 += values[0].as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Int64(Some(self.0)))
    }

    fn size(&self) -> usize {
        size_of::<Self>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0 += states[0].as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
        Ok(())
    }
}

fn functions() -> UserFunctions {
    let mut functions = UserFunctions::default();
    let same = |args: &[ColumnarValue]| {
        if let ColumnarValue::Array(values) = &args[0] {
            look_at(values);
        }
        Ok(args[0].clone())
    };
    let number = DataType::Int64;
    functions.add_scalar(create_udf(
        "fussy",
        vec![number.clone()],
        number.clone(),
        Volatility::Immutable,
        Arc::new(same),
    ));
    functions.add_aggregate(create_udaf(
        "fussy_sum",
        vec![number.clone()],
        Arc::new(number.clone()),
        Volatility::Immutable,
        Arc::new(|_args| Ok(Box::<Fussy>::default() as _)),
        Arc::new(vec![number]),
    ));
    functions
}

const WINDOW: &str = "TUMBLE(meter_readings, ts, INTERVAL '1 minute')";

/// The rules that are stopped or fail, with where and why: at an offset of the lane, at a row of the result, or as a whole.
fn outcome(files: &[RuleFile]) -> BTreeMap<String, String> {
    let set = compile_with_functions(&functions(), files);
    let (mut worker, mut program) = (set.lane_program(), set.final_program());
    let id = |rule: usize| set.rules()[rule].header.id.clone();
    let rows = lane(0, 400, &mut Lcg(7));
    let mut outcome: BTreeMap<String, String> = BTreeMap::new();
    let mut given: BTreeMap<String, usize> = BTreeMap::new();
    for from in (0..400).step_by(50) {
        let output = worker.push(0, "meter_readings", &rows.slice(from, 50));
        for error in output.errors {
            let at = error.offset.map_or_else(String::new, |_| "at an event: ".to_owned());
            outcome.insert(id(error.rule), format!("{at}{}", error.message));
        }
        output.rows.iter().for_each(|rows| *given.entry(id(rows.rule)).or_default() += rows.batch.num_rows());
    }
    for delta in worker.seal().expect("seals") {
        program.merge(&delta).expect("merges");
    }
    let output = program.advance(&vec![END_OF_TIME; set.states().len()]).expect("advances");
    output.rows.iter().for_each(|rows| *given.entry(id(rows.rule)).or_default() += rows.batch.num_rows());
    outcome.extend(output.errors.into_iter().map(|error| (id(error.rule), format!("at a row: {}", error.message))));
    outcome.extend(output.stopped.into_iter().map(|(rule, message)| (id(rule), format!("stopped: {message}"))));
    assert_eq!(given.get("calm"), Some(&400), "another rule goes on");
    assert!(program.dump().is_ok() && program.dump_stages().is_ok(), "there is state to store");
    assert_eq!(program.advance(&vec![END_OF_TIME; set.states().len()]).expect("goes on").stopped, []);
    outcome
}

#[test]
fn a_function_that_panics_stops_its_rule_and_nothing_else() {
    let of_event = rule("of_event", PATIENT, "SELECT ts, fussy(seq_no) AS x FROM meter_readings");
    let of_group = rule(
        "of_group",
        PATIENT,
        &format!("SELECT window_end, fussy_sum(seq_no) AS x FROM {WINDOW} GROUP BY window_start, window_end"),
    );
    let of_result = rule(
        "of_result",
        PATIENT,
        &format!(
            "SELECT window_end, fussy(n) AS x FROM (SELECT window_end, least(max(seq_no), {FEARED}) AS n FROM {WINDOW} GROUP BY window_start, window_end)"
        ),
    );
    let of_rows = rule(
        "of_rows",
        PATIENT,
        "SELECT ts, fussy_sum(seq_no) OVER (PARTITION BY meter_id ORDER BY ts, _offset, _index ROWS UNBOUNDED PRECEDING) AS x FROM meter_readings",
    );
    let calm = rule("calm", PATIENT, "SELECT ts FROM meter_readings");
    let outcome = outcome(&[of_event, of_group, of_result, of_rows, calm]);
    let said: Vec<(&str, bool)> = outcome.iter().map(|(id, said)| (id.as_str(), said.contains("a three"))).collect();
    assert_eq!(said, [("of_event", true), ("of_group", true), ("of_result", true), ("of_rows", true)], "{outcome:#?}");
    assert!(outcome["of_event"].starts_with("at an event: "), "{outcome:#?}");
    assert!(outcome["of_group"].starts_with("at an event: "), "{outcome:#?}");
    assert!(outcome["of_result"].starts_with("at a row: "), "{outcome:#?}");
    assert!(outcome["of_rows"].starts_with("stopped: "), "{outcome:#?}");
}
