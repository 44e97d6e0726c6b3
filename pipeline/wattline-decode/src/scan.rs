//! A strict pull scanner for JSON text (RFC 8259): the bytes are looked at once and nothing is allocated.
//!
//! Why not `serde_json`: on this path it costs three times as much, its floats are off by one unit in the last place
//! unless a slower feature is on, and it cannot tell where in a schema file a mistake stands. The property tests hold
//! this scanner to what `serde_json` accepts.
//!
//! The input is valid UTF-8 before it gets here. Escapes are checked when a string is scanned, so that resolving
//! them later cannot fail. Nesting is bounded by the caller's limit; the only recursion is one frame per level.

use crate::eight;
use crate::number::{Grammar, Number};

/// Why a text is not JSON, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// Byte offset in the text.
    pub(crate) at: usize,
    /// What is wrong there.
    pub(crate) what: Fault,
}

/// What is wrong with a JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The text ends too early.
    End,
    /// Something else should stand here.
    Expected(&'static str),
    /// A backslash sequence that JSON does not have, or half a surrogate pair.
    Escape,
    /// A control character inside a string.
    Control,
    /// More text after the value.
    Trailing,
    /// Arrays and objects inside each other beyond the limit.
    Depth,
}

impl Fault {
    /// The fault in words.
    pub(crate) fn describe(self) -> String {
        match self {
            Self::End => "the text ends too early".to_owned(),
            Self::Expected(what) => format!("expected {what}"),
            Self::Escape => "invalid escape in a string".to_owned(),
            Self::Control => "control character in a string".to_owned(),
            Self::Trailing => "text after the end of the value".to_owned(),
            Self::Depth => "nested too deeply".to_owned(),
        }
    }
}

/// A string between its quotes, escapes not yet resolved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawText<'a> {
    /// What stands between the quotes.
    pub(crate) raw: &'a str,
    escaped: bool,
}

impl<'a> RawText<'a> {
    /// The text; `scratch` is written only if there are escapes to resolve.
    pub(crate) fn resolve<'s>(self, scratch: &'s mut String) -> &'s str
    where
        'a: 's,
    {
        if !self.escaped {
            return self.raw;
        }
        scratch.clear();
        unescape(self.raw, scratch);
        scratch
    }
}

/// A position in a JSON text.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    text: &'a str,
    /// Byte offset of what comes next.
    pub(crate) at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the beginning of a text.
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Starts somewhere in a text.
    pub(crate) fn at(text: &'a str, at: usize) -> Self {
        Self { text, at }
    }

    /// The text from `start` to here.
    pub(crate) fn since(&self, start: usize) -> &'a str {
        &self.text[start..self.at]
    }

    /// The whole text.
    #[inline]
    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    /// The next byte.
    #[inline]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Moves past white space.
    #[inline]
    pub(crate) fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// An error at this place.
    pub(crate) fn fault(&self, what: Fault) -> Malformed {
        let what = if self.at >= self.text.len() && matches!(what, Fault::Expected(_)) { Fault::End } else { what };
        Malformed { at: self.at, what }
    }

    /// Moves past `byte` if it comes next.
    #[inline]
    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Moves past `byte`, which must come next.
    #[inline]
    pub(crate) fn expect(&mut self, byte: u8, name: &'static str) -> Result<(), Malformed> {
        if self.eat(byte) { Ok(()) } else { Err(self.fault(Fault::Expected(name))) }
    }

    /// Nothing but white space may follow.
    pub(crate) fn end(&mut self) -> Result<(), Malformed> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.fault(Fault::Trailing)) }
    }

    /// Opens an object or array: moves past its bracket; `false` if it is empty (then it is closed too).
    #[inline]
    pub(crate) fn open(&mut self, close: u8) -> bool {
        self.at += 1;
        self.skip_space();
        !self.eat(close)
    }

    /// After a member: `true` if another follows, `false` if the object or array is closed.
    #[inline]
    pub(crate) fn next_member(&mut self, close: u8) -> Result<bool, Malformed> {
        self.skip_space();
        if self.eat(b',') {
            self.skip_space();
            return Ok(true);
        }
        if self.eat(close) {
            return Ok(false);
        }
        Err(self.fault(Fault::Expected(if close == b'}' { "`,` or `}`" } else { "`,` or `]`" })))
    }

    /// Reads a member's name and the colon, up to its value.
    #[inline]
    pub(crate) fn name(&mut self) -> Result<RawText<'a>, Malformed> {
        let name = self.string()?;
        self.skip_space();
        self.expect(b':', "`:`")?;
        self.skip_space();
        Ok(name)
    }

    /// Reads a string.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<RawText<'a>, Malformed> {
        self.expect(b'"', "a string")?;
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at = eight::string_end(bytes, self.at);
            match bytes.get(self.at) {
                Some(b'"') => {
                    let raw = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(RawText { raw, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.fault(Fault::Control)),
                None => return Err(self.fault(Fault::End)),
            }
        }
    }

    /// Reads a number.
    #[inline]
    pub(crate) fn number(&mut self) -> Result<Number<'a>, Malformed> {
        let Some((number, end)) = Number::scan(self.text, self.at, Grammar::Json) else {
            return Err(self.fault(Fault::Expected("a number")));
        };
        self.at = end;
        Ok(number)
    }

    /// Reads `true`, `false` or `null`.
    #[inline]
    pub(crate) fn literal(&mut self, word: &'static str) -> Result<(), Malformed> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.fault(Fault::Expected("a value")))
    }

    /// Moves past one value, checking it; `depth` more levels of nesting are allowed.
    pub(crate) fn skip_value(&mut self, depth: u8) -> Result<(), Malformed> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            Some(b'{') => self.skip_members(b'}', depth),
            Some(b'[') => self.skip_members(b']', depth),
            Some(_) | None => Err(self.fault(Fault::Expected("a value"))),
        }
    }

    fn skip_members(&mut self, close: u8, depth: u8) -> Result<(), Malformed> {
        let depth = depth.checked_sub(1).ok_or_else(|| self.fault(Fault::Depth))?;
        let mut more = self.open(close);
        while more {
            if close == b'}' {
                self.name()?;
            }
            self.skip_value(depth)?;
            more = self.next_member(close)?;
        }
        Ok(())
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        match self.text.as_bytes().get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => {
                let first = self.hex4(self.at + 2)?;
                self.at += 6;
                match first {
                    0xDC00..=0xDFFF => Err(self.fault(Fault::Escape)),
                    0xD800..=0xDBFF => self.second_surrogate(),
                    _ => Ok(()),
                }
            }
            Some(_) => Err(self.fault(Fault::Escape)),
            None => Err(self.fault(Fault::End)),
        }
    }

    fn second_surrogate(&mut self) -> Result<(), Malformed> {
        let follows = self.text.as_bytes()[self.at..].starts_with(b"\\u");
        if follows && (0xDC00..=0xDFFF).contains(&self.hex4(self.at + 2)?) {
            self.at += 6;
            return Ok(());
        }
        Err(self.fault(Fault::Escape))
    }

    fn hex4(&self, at: usize) -> Result<u32, Malformed> {
        hex4(self.text.as_bytes(), at).ok_or_else(|| self.fault(Fault::Escape))
    }
}

fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.iter().try_fold(0, |value, b| Some(value * 16 + char::from(*b).to_digit(16)?))
}

/// Resolves escapes that [`Cursor::string`] has checked.
fn unescape(raw: &str, out: &mut String) {
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let bytes = rest.as_bytes();
        let mut used = 2;
        let resolved = match bytes.get(at + 1) {
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let first = hex4(bytes, at + 2).unwrap_or(0);
                used = if (0xD800..0xDC00).contains(&first) { 12 } else { 6 };
                let second = if used == 12 { hex4(bytes, at + 8).unwrap_or(0) } else { 0 };
                let code = if used == 12 { 0x10000 + ((first & 0x3FF) << 10) + (second & 0x3FF) } else { first };
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            Some(other) => char::from(*other),
            None => break,
        };
        out.push(resolved);
        rest = &rest[at + used..];
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepts(text: &str) -> bool {
        let mut cursor = Cursor::new(text);
        cursor.skip_space();
        cursor.skip_value(127).and_then(|()| cursor.end()).is_ok()
    }

    #[test]
    fn what_is_json_and_what_is_not() {
        for text in
            ["{}", "[]", " [1 , 2 ] ", "{\"a\":{\"b\":[true,false,null]}}", "-0", "1e5", "\"\\ud83d\\ude00\"", "\"é\""]
        {
            assert!(accepts(text), "{text}");
        }
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "01",
            "1.",
            "+1",
            "nul",
            "NaN",
            "Infinity",
            "'a'",
            "[1] 2",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\udc00\"",
            "\"\n\"",
            "{\"a\":1,}",
            "\"abc",
            "\"\\u12",
            "tru",
            "// x\n1",
        ] {
            assert!(!accepts(text), "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        let depth = |n, limit| Cursor::new(&deep(n)).skip_value(limit).map_err(|e| e.what);
        assert_eq!(depth(4, 4), Ok(()));
        assert_eq!(depth(5, 4), Err(Fault::Depth));
        assert_eq!(depth(100_000, 255), Err(Fault::Depth));
    }

    /// Texts that are nearly JSON: pieces of it in any order.
    fn nearly_json() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("{".to_owned()),
            Just("}".to_owned()),
            Just("[".to_owned()),
            Just("]".to_owned()),
            Just(",".to_owned()),
            Just(":".to_owned()),
            Just("\"a\"".to_owned()),
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just(" ".to_owned()),
            "-?[0-9]{1,3}(\\.[0-9]{0,2})?(e[+-]?[0-9]{0,2})?",
            "\"\\PC{0,4}\"",
            "\"(\\\\[\"u\\\\/bnx])?[0-9a-fD]{0,4}\"",
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    fn valid_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            (-1e9..1e9_f64).prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                proptest::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(text in nearly_json()) {
            let parsed = serde_json::from_str::<serde_json::Value>(&text);
            // A number beyond f64 is JSON by the grammar; it is refused later, by its type.
            let out_of_range = parsed.as_ref().is_err_and(|e| e.to_string().starts_with("number out of range"));
            prop_assert!(out_of_range || parsed.is_ok() == accepts(&text), "{}", text);
        }

        #[test]
        fn accepts_what_serde_json_writes(value in valid_json()) {
            prop_assert!(accepts(&value.to_string()));
            prop_assert!(accepts(&serde_json::to_string_pretty(&value).unwrap()));
        }

        #[test]
        fn strings_round_trip(text: String) {
            let written = serde_json::to_string(&text).unwrap();
            let mut scratch = String::new();
            prop_assert_eq!(Cursor::new(&written).string().unwrap().resolve(&mut scratch), &text);
            let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            let written = format!("\"{escaped}\"");
            prop_assert_eq!(Cursor::new(&written).string().unwrap().resolve(&mut scratch), &text);
        }
    }
}
