//! Messages between slots as they travel: what is read of the format of today, and what is said of another.

use super::*;

/// A message with this head, and rows that no version of today can read.
fn message_of(head: &str) -> Vec<u8> {
    let len = u32::try_from(head.len()).expect("a short head").to_le_bytes();
    [&len[..], head.as_bytes(), &b"rows as nobody knows them"[..]].concat()
}

#[test]
fn a_message_is_read_as_it_was_written() {
    let head = Head {
        format: FORMAT,
        from: 1,
        incarnation: "a81b2c".to_owned(),
        n: 17,
        part: 0,
        before: 16,
        close: Some(Close::default()),
    };
    let message = write_message(&head, &[]).expect("written");
    let (read, rows) = read_message(5, &message).expect("readable");
    assert_eq!((read, rows.len()), (head, 0));
}

#[test]
fn a_message_of_another_format_is_refused_as_such() {
    let (later, earlier) = (FORMAT + 1, FORMAT - 1);
    for (head, reason) in [
        (
            format!(r#"{{"format": {later}, "from": "slot 1", "n": [17], "sealed": true}}"#),
            format!("its format is {later}, this version of wattline reads {FORMAT}"),
        ),
        (format!(r#"{{"format": {earlier}, "from": 1, "n": 17}}"#), format!("its format is {earlier}, this version")),
        (format!(r#"{{"format": {FORMAT}, "from": 1}}"#), "missing field `incarnation`".to_owned()),
        (r#"{"from": 1, "n": 17}"#.to_owned(), "missing field `format`".to_owned()),
    ] {
        let error = read_message(5, &message_of(&head)).expect_err("refused").to_string();
        assert!(error.contains("message 5 of the inbox") && error.contains(&reason), "{error}");
    }
}

#[test]
fn a_message_that_was_cut_off_is_refused() {
    let message = message_of(r#"{"format": 1}"#);
    for len in [0, 3, 4, 10] {
        let error = read_message(5, &message[..len]).expect_err("refused").to_string();
        assert!(error.contains("it is too short") || error.contains("it is cut off"), "{len}: {error}");
    }
}
