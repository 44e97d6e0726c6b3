//! A JSON document as a tree whose every node knows its place in the text.
//!
//! Needed because a mistake in a schema must be shown where it stands, and `serde_json::Value` forgets places.

use std::ops::Range;

use crate::scan::{Cursor, Malformed};

/// How deep a schema file may nest.
const DEPTH_MAX: u8 = 32;

/// A value and the bytes it was read from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) span: Range<usize>,
    pub(super) value: Value,
}

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Boolean,
    Number(String),
    Text(String),
    Array(Vec<Node>),
    /// Members in their order: name, place of the name, value.
    Object(Vec<Member>),
}

/// One member of an object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) name_span: Range<usize>,
    pub(super) node: Node,
}

impl Node {
    /// Reads a whole document.
    pub(super) fn parse(text: &str) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(text);
        cursor.skip_space();
        let node = read(&mut cursor, DEPTH_MAX)?;
        cursor.end()?;
        Ok(node)
    }

    /// The member of that name, if this is an object that has it.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        self.members().iter().find(|member| member.name == name).map(|member| &member.node)
    }

    /// The members, if this is an object.
    pub(super) fn members(&self) -> &[Member] {
        if let Value::Object(members) = &self.value { members } else { &[] }
    }

    /// The text, if this is one.
    pub(super) fn text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }

    /// The items, if this is an array.
    pub(super) fn items(&self) -> Option<&[Self]> {
        if let Value::Array(items) = &self.value { Some(items) } else { None }
    }

    /// The number, if this is a whole one that fits.
    pub(super) fn whole_number<T: std::str::FromStr>(&self) -> Option<T> {
        if let Value::Number(text) = &self.value { text.parse().ok() } else { None }
    }
}

fn read(cursor: &mut Cursor<'_>, depth: u8) -> Result<Node, Malformed> {
    let start = cursor.at;
    let value = match cursor.peek() {
        Some(b'{') => Value::Object(read_members(cursor, depth)?),
        Some(b'[') => Value::Array(read_items(cursor, depth)?),
        Some(b'"') => Value::Text(cursor.string()?.resolve(&mut String::new()).to_owned()),
        Some(b'-' | b'0'..=b'9') => Value::Number(cursor.number()?.text.to_owned()),
        Some(b'n') => cursor.literal("null").map(|()| Value::Null)?,
        Some(b't') => cursor.literal("true").map(|()| Value::Boolean)?,
        Some(_) | None => cursor.literal("false").map(|()| Value::Boolean)?,
    };
    Ok(Node { span: start..cursor.at, value })
}

fn read_items(cursor: &mut Cursor<'_>, depth: u8) -> Result<Vec<Node>, Malformed> {
    let depth = depth.checked_sub(1).ok_or_else(|| cursor.fault(crate::scan::Fault::Depth))?;
    let mut items = Vec::new();
    let mut more = cursor.open(b']');
    while more {
        items.push(read(cursor, depth)?);
        more = cursor.next_member(b']')?;
    }
    Ok(items)
}

fn read_members(cursor: &mut Cursor<'_>, depth: u8) -> Result<Vec<Member>, Malformed> {
    let depth = depth.checked_sub(1).ok_or_else(|| cursor.fault(crate::scan::Fault::Depth))?;
    let mut members = Vec::new();
    let mut more = cursor.open(b'}');
    while more {
        let start = cursor.at;
        let raw = cursor.name()?;
        let name_span = start..start + raw.raw.len() + 2;
        let name = raw.resolve(&mut String::new()).to_owned();
        members.push(Member { name, name_span, node: read(cursor, depth)? });
        more = cursor.next_member(b'}')?;
    }
    Ok(members)
}
