//! Avro's binary form, as much of it as a test needs to write a record by hand.

/// Appends an int or a long.
pub fn write_long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends bytes or a string.
pub fn write_bytes(value: &[u8], out: &mut Vec<u8>) {
    write_long(value.len().cast_signed() as i64, out);
    out.extend_from_slice(value);
}

/// The begin of a record that names its schema by its number in a registry.
#[must_use]
pub fn framed(number: u32) -> Vec<u8> {
    [&[0][..], &number.to_be_bytes()].concat()
}
