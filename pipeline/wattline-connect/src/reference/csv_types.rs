//! The types of CSV columns: the names that the configuration may state, and what is inferred without one.
//!
//! A type is inferred only if every value of the column has its exact form. Names of ids (`id`, `…_id`, `…_no`,
//! `…_code`) and values with leading zeros stay text; instants need a zone; numbers with more digits
//! than their type holds exactly are text, too.

use arrow::array::{Array, StringArray};
use arrow::datatypes::{DataType, TimeUnit};

/// The type that a configuration's word means; `None` if it is not one.
pub(super) fn parse_type(text: &str) -> Option<DataType> {
    let text = text.trim().to_ascii_lowercase();
    Some(match text.as_str() {
        "string" | "varchar" | "text" => DataType::Utf8,
        "bigint" | "int" | "integer" | "long" => DataType::Int64,
        "double" | "float" => DataType::Float64,
        "boolean" | "bool" => DataType::Boolean,
        "date" => DataType::Date32,
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        _ => {
            let inner = text.strip_prefix("decimal")?.trim().strip_prefix('(')?.strip_suffix(')')?;
            let (precision, scale) = inner.split_once(',').unwrap_or((inner, "0"));
            let (precision, scale) = (precision.trim().parse::<u8>().ok()?, scale.trim().parse::<i8>().ok()?);
            let fits = (1..=38).contains(&precision) && u8::try_from(scale).is_ok_and(|scale| scale <= precision);
            return fits.then_some(DataType::Decimal128(precision, scale));
        }
    })
}

/// The word for a type in a message.
pub(super) fn named(data_type: &DataType) -> String {
    match data_type {
        DataType::Int64 => "a whole number".to_owned(),
        DataType::Float64 => "a number".to_owned(),
        DataType::Boolean => "true or false".to_owned(),
        DataType::Date32 => "a date (YYYY-MM-DD)".to_owned(),
        DataType::Timestamp(_, _) => "an instant (RFC 3339, for example 2026-01-31T08:00:00+08:00)".to_owned(),
        DataType::Decimal128(precision, scale) => format!("a decimal({precision},{scale})"),
        other => format!("a value of type {other}"),
    }
}

/// Whether a decimal would have to drop digits of `text`; a cast would round silently.
pub(super) fn loses_digits(text: &str, data_type: &DataType) -> bool {
    let DataType::Decimal128(_, scale) = data_type else { return false };
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    let digits = fraction.trim_end_matches('0').len();
    i8::try_from(digits).is_ok_and(|digits| digits > *scale) || digits > 38
}

/// The type that all values of a column have; text if they have none in common or the column is empty.
pub(super) fn infer(name: &str, values: &StringArray) -> DataType {
    let name = name.to_ascii_lowercase();
    if name == "id"
        || ["_id", "_no", "_code"].iter().any(|ending| name.ends_with(ending))
        || values.null_count() == values.len()
    {
        return DataType::Utf8;
    }
    let all = |form: fn(&str) -> bool| values.iter().flatten().all(form);
    if all(is_whole) {
        DataType::Int64
    } else if all(is_number) {
        DataType::Float64
    } else if all(|value| matches!(value.to_ascii_lowercase().as_str(), "true" | "false")) {
        DataType::Boolean
    } else if all(is_date) {
        DataType::Date32
    } else if all(is_instant) {
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
    } else {
        DataType::Utf8
    }
}

fn is_whole(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    is_digits(digits) && digits.len() <= 18 && (digits == "0" || !digits.starts_with('0'))
}

fn is_number(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let zeros_lead = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    let too_long = digits.bytes().filter(u8::is_ascii_digit).count() > 17;
    let shaped = digits.starts_with(|c: char| c.is_ascii_digit()) && !zeros_lead && !too_long;
    shaped && value.parse::<f64>().is_ok_and(f64::is_finite)
}

fn is_date(value: &str) -> bool {
    let parts: Vec<&str> = value.split('-').collect();
    matches!(parts.as_slice(), [y, m, d] if y.len() == 4 && m.len() == 2 && d.len() == 2)
        && parts.iter().all(|part| is_digits(part))
}

fn is_instant(value: &str) -> bool {
    let Some((date, time)) = value.split_once(['T', ' ']) else { return false };
    let zoned = time.ends_with('Z') || time.rfind(['+', '-']).is_some_and(|at| time.len() - at >= 5);
    is_date(date) && zoned && time.starts_with(|c: char| c.is_ascii_digit())
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_decide_and_names_of_ids_win() {
        let cases: [(&str, &[&str], DataType); 8] = [
            ("n", &["1", "-20", "0"], DataType::Int64),
            ("n", &["1", "2.5", "1e3"], DataType::Float64),
            ("n", &["1", "007"], DataType::Utf8),
            ("meter_id", &["1", "2"], DataType::Utf8),
            ("n", &["1234567890123456789"], DataType::Utf8),
            ("n", &["2026-01-02"], DataType::Date32),
            ("n", &["2026-01-02T00:00:00"], DataType::Utf8),
            ("n", &["inf", "NaN"], DataType::Utf8),
        ];
        for (name, values, wanted) in cases {
            assert_eq!(infer(name, &StringArray::from(values.to_vec())), wanted, "{name} {values:?}");
        }
        assert_eq!(parse_type("DECIMAL( 9 , 3 )"), Some(DataType::Decimal128(9, 3)));
        assert_eq!(parse_type("decimal(3,9)"), None);
    }
}
