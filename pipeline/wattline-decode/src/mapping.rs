//! The optional mapping from a payload to the canonical schema of its stream.
//!
//! A mapping can rename, scale, shift, explode, fill and round; it cannot compute. What needs an expression belongs in a rule
//! or a view, where it is tested.
//!
//! Paths are names joined by dots, seen from the event or from any object around it. With `explode`, a path may also be
//! written from the top of the message, which tells `id` of the message from `readings.id` of its elements; arrays on
//! the way have no part in a path.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::column::{Column, Treatment};
use crate::json::write_cell;
use crate::limits::Limits;
use crate::number::{Exact, Number};
use crate::schema::{FieldType, StreamSchema};
use crate::shift::{Shift, ShiftBy};

/// How a payload becomes the canonical schema.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mapping {
    /// Path in the payload → field of the schema.
    pub rename: BTreeMap<String, String>,
    /// Field → what its numbers are multiplied by.
    pub scale: BTreeMap<String, Factor>,
    /// Instant field → how much later it is than the payload says.
    pub shift: BTreeMap<String, Shift>,
    /// Path of the array whose elements are the events; `.` if the message itself is the array.
    /// Arrays of objects on the way are walked too. The element's fields overlay those of the objects around it.
    pub explode: Option<String>,
    /// Field → value where the payload has none or null.
    pub constants: BTreeMap<String, Constant>,
    /// Decimal fields whose digits beyond the scale are rounded half away from zero instead of being refused.
    pub round: BTreeSet<String>,
    /// Paths in the payload that are not counted as unknown.
    pub ignore: BTreeSet<String>,
}

/// An exact factor, written as a number or as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Factor(Exact);

/// A value for payloads that lack a field; kept as text, typed by the field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constant(String);

/// One mistake in a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingProblem {
    /// The key in the mapping, such as `rename.v_a`: where in the configuration to look.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl fmt::Display for MappingProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.key, self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

impl Mapping {
    /// All mistakes of the mapping for this schema; empty if there are none.
    pub fn validate(&self, schema: &StreamSchema) -> Vec<MappingProblem> {
        let mut problems = Vec::new();
        self.check_paths(schema, &mut problems);
        for (name, factor) in &self.scale {
            let Some(index) = known(schema, "scale", name, &mut problems) else { continue };
            if !schema.fields[index].field_type.is_numeric() {
                problems.push(problem("scale", name, "the field is not numeric", Some("remove the factor")));
            }
            if factor.0.digits == 0 {
                problems.push(problem(
                    "scale",
                    name,
                    "a factor of 0 loses every value",
                    Some("write the factor, such as 0.1"),
                ));
            }
        }
        for name in &self.round {
            let Some(index) = known(schema, "round", name, &mut problems) else { continue };
            if !matches!(schema.fields[index].field_type, FieldType::Decimal { .. }) {
                problems.push(problem("round", name, "only decimals are rounded", Some("remove it from `round`")));
            }
        }
        self.check_shifts(schema, &mut problems);
        self.check_constants(schema, &mut problems);
        problems
    }

    /// The path of `explode` as its names; `None` without `explode`.
    pub(crate) fn explode_path(&self) -> Option<Vec<&str>> {
        let path = self.explode.as_deref()?;
        Some(if path == "." { Vec::new() } else { path.split('.').collect() })
    }

    /// What happens to the numbers of a field.
    pub(crate) fn treatment(&self, field: &str) -> Treatment {
        Treatment { factor: self.scale.get(field).map(|factor| Box::new(factor.0)), round: self.round.contains(field) }
    }

    fn check_paths(&self, schema: &StreamSchema, problems: &mut Vec<MappingProblem>) {
        for (path, field) in &self.rename {
            if known(schema, "rename", field, problems).is_none()
                && let Some(found) = problems.last_mut()
            {
                found.key = format!("rename.{path}");
            }
            let shorter = self.rename.keys().find(|other| is_inside(path, other));
            if let Some(shorter) = shorter {
                let message = format!("`{shorter}` is renamed as a value and cannot be an object too");
                problems.push(problem("rename", path, &message, Some("keep one of the two")));
            }
            if self.ignore.contains(path) {
                problems.push(problem("ignore", path, "the same path is renamed", Some("remove it from `ignore`")));
            }
        }
        let explode = self.explode.iter().filter(|path| *path != ".").map(|path| ("explode", path));
        let others =
            self.rename.keys().map(|path| ("rename", path)).chain(self.ignore.iter().map(|path| ("ignore", path)));
        for (table, path) in explode.chain(others) {
            if path.split('.').any(str::is_empty) {
                let help = if table == "explode" {
                    "write names joined by dots, or `.` for the message itself"
                } else {
                    "write names joined by dots"
                };
                problems.push(problem(table, path, "a name in the path is empty", Some(help)));
            }
        }
    }

    fn check_shifts(&self, schema: &StreamSchema, problems: &mut Vec<MappingProblem>) {
        for (name, shift) in &self.shift {
            let Some(index) = known(schema, "shift", name, problems) else { continue };
            if schema.fields[index].field_type != FieldType::Instant {
                problems.push(problem("shift", name, "the field is no instant", Some("remove the shift")));
            }
            let Shift::By(ShiftBy { by, values }) = shift else { continue };
            let Some(index) = known(schema, "shift", by, problems) else { continue };
            match &schema.fields[index].field_type {
                FieldType::Text => {}
                FieldType::Symbol(symbols) => {
                    let unknown = values.keys().filter(|value| !symbols.iter().any(|symbol| **symbol == ***value));
                    problems.extend(unknown.map(|value| no_symbol(name, by, value, symbols)));
                }
                _ => {
                    let message = format!("`{by}` is no text");
                    problems.push(problem("shift", name, &message, Some("write `by` with a field of texts")));
                }
            }
        }
    }

    fn check_constants(&self, schema: &StreamSchema, problems: &mut Vec<MappingProblem>) {
        for (name, constant) in &self.constants {
            let Some(index) = known(schema, "constants", name, problems) else { continue };
            let field = &schema.fields[index];
            let mut column = Column::new(&field.field_type, !field.required);
            if let Err(unfit) = constant.write(&mut column, &Limits::default()) {
                let message = format!("`{}` is not {}", constant.0, unfit.wanted);
                problems.push(problem("constants", name, &message, None));
            }
        }
    }
}

impl Constant {
    /// Appends the value to its column.
    pub(crate) fn write(&self, column: &mut Column, limits: &Limits) -> Result<(), crate::column::Unfit> {
        write_cell(column, &self.0, &Treatment::default(), limits).map(drop)
    }
}

fn is_inside(path: &str, object: &str) -> bool {
    path.strip_prefix(object).is_some_and(|rest| rest.starts_with('.'))
}

fn known(schema: &StreamSchema, table: &str, name: &str, problems: &mut Vec<MappingProblem>) -> Option<usize> {
    let index = schema.index_of(name);
    if index.is_none() {
        let message = format!("stream `{}` has no field `{name}`", schema.name);
        let help = schema.nearest(name).map(|meant| format!("did you mean `{meant}`?"));
        problems.push(problem(table, name, &message, help.as_deref()));
    }
    index
}

/// No event has such a value, so nothing would be shifted by it.
fn no_symbol(shifted: &str, by: &str, value: &str, symbols: &[Box<str>]) -> MappingProblem {
    let symbols: Vec<String> = symbols.iter().map(|symbol| format!("`{symbol}`")).collect();
    let help = format!("write one of {}", symbols.join(", "));
    problem("shift", shifted, &format!("`{by}` is never `{value}`"), Some(&help))
}

fn problem(table: &str, name: &str, message: &str, help: Option<&str>) -> MappingProblem {
    MappingProblem { key: format!("{table}.{name}"), message: message.to_owned(), help: help.map(str::to_owned) }
}

impl<'de> Deserialize<'de> for Factor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = deserializer.deserialize_any(ScalarText { expected: "a factor such as 0.1 or \"0.001\"" })?;
        let exact = Number::parse(&text).and_then(|number| number.exact());
        exact
            .map(Self)
            .ok_or_else(|| de::Error::custom(format!("`{text}` is not a factor: write a number such as 0.1")))
    }
}

impl<'de> Deserialize<'de> for Constant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarText { expected: "a number, a text or a boolean" }).map(Self)
    }
}

/// Takes a scalar as the text that a person would write for it; floats by their shortest decimal form.
struct ScalarText {
    expected: &'static str,
}

impl Visitor<'_> for ScalarText {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> StreamSchema {
        StreamSchema::parse(include_str!("../../../schemas/meter_readings.avsc"), "meter_readings").unwrap()
    }

    #[test]
    fn a_good_mapping_has_no_problems() {
        let mapping: Mapping = toml::from_str(
            "explode = 'data.readings'\nround = ['energy_imp_kwh']\nignore = ['debug']\n\
             [rename]\nv_a = 'u_a_v'\n'head.id' = 'concentrator_id'\n\
             [scale]\nu_a_v = 0.1\nenergy_imp_kwh = '0.001'\n\
             [shift]\nts = { by = 'source', values = { 'head-end 3' = '15 minutes' } }\n\
             [constants]\nsource = 'head-end 3'\ninterval_s = 900\nu_h = '[1.5, 2]'\npq_flagged = false\n",
        )
        .unwrap();
        assert_eq!(mapping.validate(&schema()), []);
        assert_eq!(mapping.explode_path(), Some(vec!["data", "readings"]));
        assert_eq!(mapping.treatment("u_a_v").factor, Some(Box::new(Exact { digits: 1, exponent: -1 })));
    }

    #[test]
    fn every_mistake_is_named_with_the_nearest_right_name() {
        let mapping: Mapping = toml::from_str(
            "explode = 'a..b'\nround = ['u_a_v']\nignore = ['v_b']\n\
             [rename]\nv_a = 'u_a_vv'\nv_b = 'u_b_v'\n'v_b.x' = 'u_c_v'\n\
             [scale]\nmeter_id = 2\np_kw = 0\n\
             [shift]\nu_a_v = '1 hour'\nts = { by = 'interval_s', values = {} }\n\
             [constants]\ninterval_s = 'quarter'\nnothing_like_it_zz = 1\n",
        )
        .unwrap();
        let problems = mapping.validate(&schema());
        let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "rename.v_a",
                "ignore.v_b",
                "rename.v_b.x",
                "explode.a..b",
                "scale.meter_id",
                "scale.p_kw",
                "round.u_a_v",
                "shift.ts",
                "shift.u_a_v",
                "constants.interval_s",
                "constants.nothing_like_it_zz",
            ]
        );
        assert_eq!(problems[0].help.as_deref(), Some("did you mean `u_a_v`?"));
    }

    #[test]
    fn a_shift_goes_by_values_that_the_field_can_have() {
        let shift = "shift.ts = { by = 'reading_kind', values = { interval = '1 hour', hourly = '1 hour' } }";
        let problems = toml::from_str::<Mapping>(shift).unwrap().validate(&schema());
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let help = "write one of `interval`, `freeze_day`, `freeze_month`, `instant`, `event`";
        assert_eq!(told, [format!("`shift.ts`: `reading_kind` is never `hourly`; {help}")]);
    }

    #[test]
    fn unknown_keys_and_bad_factors_are_refused() {
        assert!(toml::from_str::<Mapping>("renam = {}").is_err());
        assert!(toml::from_str::<Mapping>("scale = { u_a_v = 'a tenth' }").is_err());
        assert!(toml::from_str::<Mapping>("shift = { ts = 'a while' }").is_err());
    }
}
