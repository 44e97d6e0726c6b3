//! Numbers of alerts in JSON, as text: `"235.7"`.
//!
//! What is read again after a crash has to be what was written, to the last bit: an alert that is published anew is the same message,
//! and a peak is beaten by the same values. A JSON number promises neither: readers may round it, and it knows no infinity. The shortest text
//! that Rust prints for a float is read as that float.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

#[expect(clippy::ref_option, reason = "as serde calls it")]
pub(super) fn serialize<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match number {
        Some(number) => serializer.collect_str(number),
        None => serializer.serialize_none(),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    text.map(|text| text.parse().map_err(|error| D::Error::custom(format!("`{text}` is no number: {error}"))))
        .transpose()
}
