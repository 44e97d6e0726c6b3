//! From the text of a schema file to a [`StreamSchema`], or to all of its mistakes.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::Schema as ArrowSchema;
use wattline_core::record::column;

use super::json_tree::{Node, Value};
use super::{Field, FieldType, SchemaProblem, StreamSchema, nearest};

const RECORD_PROPERTIES: [&str; 9] =
    ["type", "name", "namespace", "doc", "aliases", "event_time", "key", "fields", "version"];
const FIELD_PROPERTIES: [&str; 8] = ["name", "type", "default", "doc", "aliases", "order", "unit", "confidential"];
const TYPES: &str = "boolean, int, long, float, double, string, enum, bytes with logicalType decimal, long with \
                     logicalType timestamp-micros, int with logicalType date, an array of one of these, a map of \
                     string, or a union of null and one of these";

/// Reads a schema file.
pub(super) fn parse(text: &str, origin: &str) -> Result<StreamSchema, Vec<SchemaProblem>> {
    let mut reader = Reader { text, problems: Vec::new(), symbols: HashMap::new() };
    let schema = match Node::parse(text) {
        Ok(root) => reader.record(&root, origin),
        Err(malformed) => {
            let at = malformed.at.min(text.len());
            reader.problem(&(at..at), format!("not JSON: {}", malformed.what.describe()), "");
            None
        }
    };
    reader.problems.sort_by_key(|problem| problem.span.start);
    match schema {
        Some(schema) if reader.problems.is_empty() => Ok(schema),
        _ => Err(reader.problems),
    }
}

struct Reader<'t> {
    text: &'t str,
    problems: Vec<SchemaProblem>,
    /// Enums by name, which Avro lets later fields refer to.
    symbols: HashMap<String, FieldType>,
}

/// A type as a field uses it.
struct Typed {
    field_type: FieldType,
    nullable: bool,
}

impl Reader<'_> {
    fn problem(&mut self, span: &Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        let before = &self.text[..span.start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let help = Some(help.into()).filter(|help| !help.is_empty());
        self.problems.push(SchemaProblem {
            message: message.into(),
            help,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            span: span.clone(),
        });
    }

    fn record(&mut self, root: &Node, origin: &str) -> Option<StreamSchema> {
        if root.get("type").and_then(Node::text) != Some("record") {
            let span = root.get("type").map_or(root.span.start..root.span.start, |node| node.span.clone());
            self.problem(
                &span,
                "a stream's schema is an Avro record",
                "start with `{ \"type\": \"record\", \"name\": …`",
            );
            return None;
        }
        self.properties(root, &RECORD_PROPERTIES);
        let name = self.name(root, "the record");
        let fields = self.fields(root);
        let event_time = self.event_time(root, &fields);
        let key = self.key(root, &fields);
        let arrow = Arc::new(ArrowSchema::new(fields.iter().map(Field::arrow).collect::<Vec<_>>()));
        Some(StreamSchema {
            name: name?,
            doc: root.get("doc").and_then(Node::text).map(str::to_owned),
            origin: origin.to_owned(),
            fields,
            arrow,
            event_time: event_time?,
            key,
        })
    }

    fn fields(&mut self, root: &Node) -> Vec<Field> {
        let Some(items) = root.get("fields").and_then(Node::items).filter(|items| !items.is_empty()) else {
            self.problem(
                &root.span,
                "the record has no fields",
                "list them: `\"fields\": [ { \"name\": …, \"type\": … } ]`",
            );
            return Vec::new();
        };
        let mut fields: Vec<Field> = Vec::with_capacity(items.len());
        for item in items {
            let Some(field) = self.field(item) else { continue };
            if fields.iter().any(|other| other.name == field.name) {
                let span = item.get("name").map_or(&item.span, |node| &node.span).clone();
                self.problem(&span, format!("field `{}` stands twice", field.name), "remove one of the two");
                continue;
            }
            fields.push(field);
        }
        fields
    }

    fn field(&mut self, item: &Node) -> Option<Field> {
        self.properties(item, &FIELD_PROPERTIES);
        let name = self.name(item, "a field");
        let Some(type_node) = item.get("type") else {
            self.problem(&item.span, "the field has no type", format!("give it one of: {TYPES}"));
            return None;
        };
        let typed = self.typed(type_node)?;
        let name = name?;
        if let Some(default) = item.get("default").filter(|node| node.value != Value::Null) {
            self.problem(
                &default.span,
                "a default other than null is not applied",
                "write `\"default\": null`, and fill values that payloads lack with `constants` in the stream's mapping",
            );
        }
        Some(Field {
            name,
            field_type: typed.field_type,
            required: !typed.nullable,
            doc: self.text_property(item, "doc"),
            unit: self.text_property(item, "unit"),
            confidential: self.text_property(item, "confidential"),
        })
    }

    fn text_property(&mut self, item: &Node, property: &str) -> Option<String> {
        let node = item.get(property)?;
        if node.text().is_none() {
            self.problem(&node.span, format!("`{property}` is a text"), "put it in quotes");
        }
        node.text().map(str::to_owned)
    }

    /// The `name` of a record or field: a plain SQL identifier that no system column has.
    fn name(&mut self, node: &Node, of: &str) -> Option<String> {
        let Some(name_node) = node.get("name") else {
            self.problem(&node.span, format!("{of} has no name"), "give it one: `\"name\": \"…\"`");
            return None;
        };
        let name = name_node.text().unwrap_or_default();
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !plain || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            self.problem(
                &name_node.span,
                format!("`{name}` cannot name a column"),
                "use lower-case letters, digits and `_`, a letter first; rename what the payload calls otherwise in the mapping",
            );
            return None;
        }
        if name == column::EVENT_DATE {
            self.problem(&name_node.span, format!("`{name}` is added by the archive"), "choose another name");
            return None;
        }
        Some(name.to_owned())
    }

    /// Avro allows any property; one that nearly spells a known one is a mistake.
    fn properties(&mut self, node: &Node, known: &[&'static str]) {
        for (place, member) in node.members().iter().enumerate() {
            if node.members()[..place].iter().any(|earlier| earlier.name == member.name) {
                self.problem(&member.name_span, format!("`{}` stands twice", member.name), "remove one of the two");
            }
            if known.contains(&member.name.as_str()) {
                continue;
            }
            let close = known.iter().find(|name| strsim::damerau_levenshtein(name, &member.name) <= 2);
            if let Some(meant) = close {
                self.problem(
                    &member.name_span,
                    format!("unknown property `{}`", member.name),
                    format!("did you mean `{meant}`?"),
                );
            }
        }
    }

    fn event_time(&mut self, root: &Node, fields: &[Field]) -> Option<usize> {
        let help = "name the required timestamp-micros field that orders the stream: `\"event_time\": \"ts\"`";
        let Some(node) = root.get("event_time") else {
            self.problem(&(root.span.start..root.span.start), "the record does not say its `event_time`", help);
            return None;
        };
        let index = self.field_index(node, fields, help)?;
        let field = &fields[index];
        if field.field_type != FieldType::Instant || !field.required {
            self.problem(&node.span, format!("`{}` is not a required timestamp", field.name), help);
            return None;
        }
        Some(index)
    }

    fn key(&mut self, root: &Node, fields: &[Field]) -> Vec<String> {
        let help = "list the required fields that name the entity: `\"key\": [\"meter_id\"]`";
        // Events that are of nothing in particular have no key.
        let Some(node) = root.get("key") else { return Vec::new() };
        let Some(items) = node.items() else {
            self.problem(&node.span, "`key` is a list of field names", help);
            return Vec::new();
        };
        let mut key = Vec::with_capacity(items.len());
        for item in items {
            let Some(index) = self.field_index(item, fields, help) else { continue };
            if !fields[index].required {
                self.problem(
                    &item.span,
                    format!("key field `{}` may be null", fields[index].name),
                    "make its type no union with null",
                );
            }
            key.push(fields[index].name.clone());
        }
        key
    }

    fn field_index(&mut self, node: &Node, fields: &[Field], help: &str) -> Option<usize> {
        let name = node.text().unwrap_or_default();
        let index = fields.iter().position(|field| field.name == name);
        if index.is_none() {
            let meant = nearest(name, fields.iter().map(|field| field.name.as_str()));
            let help = meant.map_or_else(|| help.to_owned(), |meant| format!("did you mean `{meant}`?"));
            self.problem(&node.span, format!("there is no field `{name}`"), help);
        }
        index
    }

    fn typed(&mut self, node: &Node) -> Option<Typed> {
        let Some(branches) = node.items() else {
            return Some(Typed { field_type: self.plain_type(node)?, nullable: false });
        };
        let is_null = |branch: &&Node| branch.text() == Some("null");
        let nullable = branches.iter().any(|branch| is_null(&branch));
        let mut others = branches.iter().filter(|branch| !is_null(branch));
        match (others.next(), others.next()) {
            (Some(only), None) => Some(Typed { field_type: self.plain_type(only)?, nullable }),
            _ => {
                self.problem(
                    &node.span,
                    "a union of several types has no column",
                    "write a union of null and one type",
                );
                None
            }
        }
    }

    fn plain_type(&mut self, node: &Node) -> Option<FieldType> {
        let name = node.text().or_else(|| node.get("type").and_then(Node::text)).unwrap_or_default();
        let logical = node.get("logicalType").and_then(Node::text);
        match (name, logical) {
            ("boolean", None) => Some(FieldType::Boolean),
            ("int", None) => Some(FieldType::Int32),
            ("long", None) => Some(FieldType::Int64),
            ("float", None) => Some(FieldType::Float32),
            ("double", None) => Some(FieldType::Float64),
            ("string", None | Some("uuid")) => Some(FieldType::Text),
            ("int", Some("date")) => Some(FieldType::Date),
            ("long", Some("timestamp-micros" | "timestamp-millis")) => Some(FieldType::Instant),
            ("bytes", Some("decimal")) => self.decimal(node),
            ("enum", None) => self.symbols(node),
            ("array", None) => self.list(node),
            ("map", None) => self.map(node),
            (_, None) if self.symbols.contains_key(name) => self.symbols.get(name).cloned(),
            _ => {
                self.unsupported(node, name, logical);
                None
            }
        }
    }

    fn unsupported(&mut self, node: &Node, name: &str, logical: Option<&str>) {
        let (what, help) = match (name, logical) {
            (_, Some("local-timestamp-micros" | "local-timestamp-millis")) => (
                "a timestamp without zone".to_owned(),
                "write `timestamp-micros`; instants are stored in UTC".to_owned(),
            ),
            ("bytes" | "fixed", _) => {
                let help = "write `{\"type\": \"bytes\", \"logicalType\": \"decimal\", \"precision\": 18, \"scale\": 4}`, or `string`";
                (format!("type `{name}`"), help.to_owned())
            }
            ("record", _) => {
                let help =
                    "write its fields beside the others, and reach into the payload with `rename` in the mapping";
                ("a record inside a record".to_owned(), help.to_owned())
            }
            ("null", _) => ("type `null` alone".to_owned(), "write a union of null and one type".to_owned()),
            (_, Some(logical)) => (format!("type `{name}` with logicalType `{logical}`"), format!("use {TYPES}")),
            (_, None) => {
                let known = ["boolean", "int", "long", "float", "double", "string", "enum", "bytes", "array", "map"];
                let help = nearest(name, known.into_iter())
                    .map_or_else(|| format!("use {TYPES}"), |meant| format!("did you mean `{meant}`?"));
                (format!("type `{name}`"), help)
            }
        };
        self.problem(&node.span, format!("{what} has no column"), help);
    }

    fn decimal(&mut self, node: &Node) -> Option<FieldType> {
        let precision = node.get("precision").and_then(Node::whole_number::<u8>);
        let scale = node.get("scale").map_or(Some(0), Node::whole_number::<i8>);
        match (precision, scale) {
            (Some(precision @ 1..=38), Some(scale)) if scale >= 0 && scale.unsigned_abs() <= precision => {
                Some(FieldType::Decimal { precision, scale })
            }
            _ => {
                let help =
                    "precision is 1 to 38 digits, scale 0 to precision, such as `\"precision\": 18, \"scale\": 4`";
                self.problem(&node.span, "this decimal has no column", help);
                None
            }
        }
    }

    fn symbols(&mut self, node: &Node) -> Option<FieldType> {
        let items = node.get("symbols").and_then(Node::items).unwrap_or_default();
        let symbols: Option<Arc<[Box<str>]>> = items.iter().map(|item| item.text().map(Into::into)).collect();
        let Some(symbols) = symbols.filter(|symbols| !symbols.is_empty()) else {
            self.problem(
                &node.span,
                "the enum has no symbols",
                "list them: `\"symbols\": [\"interval\", \"instant\"]`",
            );
            return None;
        };
        let field_type = FieldType::Symbol(symbols);
        if let Some(name) = node.get("name").and_then(Node::text) {
            self.symbols.insert(name.to_owned(), field_type.clone());
        }
        Some(field_type)
    }

    fn list(&mut self, node: &Node) -> Option<FieldType> {
        let Some(items) = node.get("items") else {
            self.problem(&node.span, "the array does not say its items", "write `\"items\": \"float\"`");
            return None;
        };
        let Typed { field_type, nullable } = self.typed(items)?;
        if matches!(field_type, FieldType::List { .. } | FieldType::Map { .. }) {
            self.problem(&items.span, "a list of lists or maps has no column", "write an array of plain values");
            return None;
        }
        Some(FieldType::List { item: Box::new(field_type), nullable })
    }

    fn map(&mut self, node: &Node) -> Option<FieldType> {
        let values = node.get("values");
        let typed = match values {
            Some(values) => self.typed(values)?,
            None => Typed { field_type: FieldType::Boolean, nullable: false },
        };
        if typed.field_type != FieldType::Text {
            let span = values.unwrap_or(node).span.clone();
            self.problem(&span, "a map holds texts", "write `\"values\": \"string\"`");
            return None;
        }
        Some(FieldType::Map { nullable: typed.nullable })
    }
}
