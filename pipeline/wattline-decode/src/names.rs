//! From the name of a JSON member to what becomes of it, in about a nanosecond.
//!
//! Payloads of one stream nearly always name their members in the same order, and write them in the same way. So each name
//! remembers which one followed it last time, and how it was written: all bytes between the comma before it and its value,
//! spaces, quotes and colon included. The guess is then one comparison of bytes: names are more than half of a typical payload,
//! and a right guess does not even scan them. A wrong guess costs a hash lookup and corrects itself, also when members are now
//! there and now not. Guesses never change a result: what is compared has been read as that name before, byte for byte.
//!
//! Unknown names are counted, but no sender can make the memory grow: after [`UNKNOWN_NAMES_MAX`] distinct ones the rest
//! are counted together under [`OTHER_NAMES`].

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::dead_letter::excerpt;
use crate::mapping::Mapping;
use crate::schema::StreamSchema;

/// Distinct unknown names counted by name.
const UNKNOWN_NAMES_MAX: usize = 256;
/// Under this all further unknown names are counted.
const OTHER_NAMES: &str = "(others)";
/// The member that stands for "no guess yet": no name is written like it.
const NOBODY: u32 = 0;
/// Bytes that are compared at once.
const CHUNK: usize = 32;
/// Longer ways of writing a name are not remembered.
const WRITTEN_BYTES_MAX: usize = 256;

/// What becomes of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// It is this field of the schema.
    Field(usize),
    /// It is an object some of whose members are wanted.
    Object(usize),
    /// It leads to the events of an exploded message.
    Events,
    /// The mapping says to ignore it.
    Ignored,
    /// Nobody knows it; counted here.
    Unknown(usize),
}

/// Where in an object the reader is: the member read last, from which the next is guessed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trail(u32);

/// All names that payloads of a stream may use, and those they did use.
#[derive(Debug)]
pub(crate) struct Names {
    objects: Vec<ObjectNames>,
    /// Those of all objects; [`NOBODY`] is the first.
    members: Vec<MemberName>,
    /// The object at each level of the explode path; the last one is the event.
    roots: Vec<usize>,
    unknown: Vec<(String, u64)>,
}

#[derive(Debug)]
struct ObjectNames {
    /// Dotted path of the object, with a dot at its end unless it is a root.
    path: String,
    index: HashMap<Box<str>, u32>,
    /// A member that stands before the first one.
    head: u32,
}

#[derive(Debug)]
struct MemberName {
    name: Box<str>,
    written: Written,
    target: Target,
    next: u32,
}

impl MemberName {
    fn new(name: &str, target: Target) -> Self {
        Self { name: name.into(), written: Written::default(), target, next: NOBODY }
    }
}

/// How a name was last written: what stood between the comma (or brace) before it and its value. Empty if not yet known.
#[derive(Debug)]
struct Written {
    text: Vec<u8>,
    /// The beginning of the text, …
    chunk: [u8; CHUNK],
    /// … and which bits of it count.
    mask: [u8; CHUNK],
}

impl Default for Written {
    fn default() -> Self {
        // A byte that is nowhere in UTF-8.
        Self { text: Vec::new(), chunk: [0xff; CHUNK], mask: [0xff; CHUNK] }
    }
}

impl Written {
    fn learn(&mut self, text: &[u8]) {
        if text.is_empty() || text.len() > WRITTEN_BYTES_MAX || self.text == text {
            return;
        }
        self.text.clear();
        self.text.extend_from_slice(text);
        let known = text.len().min(CHUNK);
        (self.chunk, self.mask) = ([0; CHUNK], [0; CHUNK]);
        self.chunk[..known].copy_from_slice(&text[..known]);
        self.mask[..known].fill(0xff);
    }

    /// How long the text is if `bytes` begin with it.
    #[inline(always)]
    fn match_length(&self, bytes: &[u8]) -> Option<usize> {
        let length = self.text.len();
        let Some(chunk) = bytes.first_chunk::<CHUNK>() else {
            return (length > 0 && bytes.starts_with(&self.text)).then_some(length);
        };
        let bytes_and_masks = chunk.iter().zip(&self.chunk).zip(&self.mask);
        let differences = bytes_and_masks.fold(0, |found, ((byte, known), mask)| found | ((byte ^ known) & mask));
        (differences == 0 && (length <= CHUNK || bytes.starts_with(&self.text))).then_some(length)
    }
}

impl Names {
    /// The names of a stream under its mapping.
    pub(crate) fn new(schema: &StreamSchema, mapping: &Mapping) -> Self {
        let mut names = Self {
            objects: Vec::new(),
            members: vec![MemberName::new("", Target::Ignored)],
            roots: Vec::new(),
            unknown: vec![(OTHER_NAMES.to_owned(), 0)],
        };
        let explode = mapping.explode_path().unwrap_or_default();
        for level in 0..=explode.len() {
            let root = names.add_object(String::new());
            names.roots.push(root);
            for (index, field) in schema.fields.iter().enumerate() {
                names.insert(root, &field.name, Target::Field(index));
            }
            names.insert_mapped(root, schema, mapping, "");
            if level > 0 {
                let prefix = explode[..level].join(".") + ".";
                names.insert_mapped(root, schema, mapping, &prefix);
            }
            if let Some(child) = explode.get(level) {
                names.insert(root, child, Target::Events);
            }
        }
        names
    }

    /// Levels of objects around the events.
    pub(crate) fn levels(&self) -> usize {
        self.roots.len() - 1
    }

    /// The object at a level of the explode path; `levels()` is the event.
    pub(crate) fn root(&self, level: usize) -> usize {
        self.roots[level]
    }

    /// Before the first member of an object.
    #[inline]
    pub(crate) fn start(&self, object: usize) -> Trail {
        Trail(self.objects[object].head)
    }

    /// What becomes of the member after the brace or comma at `at`, if it is the one that is guessed, and written as it was the
    /// last time; also how the trail goes on, and where the value is, or white space before it.
    #[inline(always)]
    pub(crate) fn guess(
        &mut self,
        trail: Trail,
        separator: u8,
        bytes: &[u8],
        at: usize,
    ) -> Option<(Target, Trail, usize)> {
        let guess = self.members[trail.0 as usize].next;
        let member = &self.members[guess as usize];
        let (first, rest) = bytes.get(at..)?.split_first()?;
        if *first != separator {
            return None;
        }
        let length = member.written.match_length(rest)?;
        if let Target::Unknown(slot) = member.target {
            self.unknown[slot].1 += 1;
        }
        Some((member.target, Trail(guess), at + 1 + length))
    }

    /// What becomes of the member that follows `trail` in an object. An unknown one is counted. `written` is what stood
    /// between the comma before the name and its value, or empty if that is not worth remembering.
    #[inline]
    pub(crate) fn resolve(&mut self, object: usize, trail: &mut Trail, name: &str, written: &[u8]) -> Target {
        let guess = self.members[trail.0 as usize].next;
        let target = match &mut self.members[guess as usize] {
            member if guess != NOBODY && *member.name == *name => {
                trail.0 = guess;
                member.written.learn(written);
                member.target
            }
            _ => self.look_up(object, trail, name, written),
        };
        if let Target::Unknown(slot) = target {
            self.unknown[slot].1 += 1;
        }
        target
    }

    /// The counts of unknown names since the last call.
    pub(crate) fn take_unknown(&mut self) -> BTreeMap<String, u64> {
        let counted = self.unknown.iter_mut().filter(|(_, count)| *count > 0);
        counted.map(|(name, count)| (name.clone(), std::mem::take(count))).collect()
    }

    fn look_up(&mut self, object: usize, trail: &mut Trail, name: &str, written: &[u8]) -> Target {
        let known = self.objects[object].index.get(name).copied();
        let Some(found) = known.or_else(|| self.learn_unknown(object, name)) else {
            return Target::Unknown(0);
        };
        self.members[trail.0 as usize].next = found;
        trail.0 = found;
        let member = &mut self.members[found as usize];
        member.written.learn(written);
        member.target
    }

    fn learn_unknown(&mut self, object: usize, name: &str) -> Option<u32> {
        if self.unknown.len() > UNKNOWN_NAMES_MAX {
            return None;
        }
        let slot = self.unknown.len();
        let shown = format!("{}{}", self.objects[object].path, excerpt(name));
        self.unknown.push((shown, 0));
        self.insert(object, name, Target::Unknown(slot));
        self.objects[object].index.get(name).copied()
    }

    fn insert_mapped(&mut self, root: usize, schema: &StreamSchema, mapping: &Mapping, prefix: &str) {
        let renamed =
            mapping.rename.iter().filter_map(|(path, field)| Some((path, Target::Field(schema.index_of(field)?))));
        let ignored = mapping.ignore.iter().map(|path| (path, Target::Ignored));
        for (path, target) in renamed.chain(ignored) {
            if let Some(path) = path.strip_prefix(prefix) {
                self.insert_path(root, path, target);
            }
        }
    }

    fn insert_path(&mut self, root: usize, path: &str, target: Target) {
        let mut object = root;
        let mut rest = path;
        while let Some((name, inner)) = rest.split_once('.') {
            let known = self.objects[object].index.get(name).map(|at| &self.members[*at as usize]);
            object = match known.map(|member| member.target) {
                Some(Target::Object(inside)) => inside,
                _ => {
                    let path = format!("{}{name}.", self.objects[object].path);
                    let inside = self.add_object(path);
                    self.insert(object, name, Target::Object(inside));
                    inside
                }
            };
            rest = inner;
        }
        self.insert(object, rest, target);
    }

    fn add_object(&mut self, path: String) -> usize {
        let head = self.add_member("", Target::Ignored);
        self.objects.push(ObjectNames { path, index: HashMap::new(), head });
        self.objects.len() - 1
    }

    fn insert(&mut self, object: usize, name: &str, target: Target) {
        if let Some(at) = self.objects[object].index.get(name) {
            self.members[*at as usize].target = target;
            return;
        }
        let at = self.add_member(name, target);
        self.objects[object].index.insert(name.into(), at);
    }

    fn add_member(&mut self, name: &str, target: Target) -> u32 {
        self.members.push(MemberName::new(name, target));
        u32::try_from(self.members.len() - 1)
            .expect("names are bounded by the schema, the mapping and the unknown ones")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(mapping: &str) -> (StreamSchema, Names) {
        let schema = StreamSchema::parse(include_str!("../../../schemas/meter_readings.avsc"), "m").unwrap();
        let names = Names::new(&schema, &toml::from_str(mapping).unwrap());
        (schema, names)
    }

    fn resolve_in(names: &mut Names, object: usize, name: &str) -> Target {
        let mut trail = names.start(object);
        names.resolve(object, &mut trail, name, b"")
    }

    fn resolve_first(names: &mut Names, level: usize, name: &str) -> Target {
        resolve_in(names, names.root(level), name)
    }

    #[test]
    fn any_order_gives_the_same_targets() {
        let (schema, mut names) = names("rename = { v_a = 'u_a_v', 'head.id' = 'meter_id' }\nignore = ['debug']");
        let field = |name| Target::Field(schema.index_of(name).unwrap());
        for order in [["ts", "v_a", "u_a_v", "debug"], ["u_a_v", "debug", "v_a", "ts"], ["ts", "ts", "ts", "v_a"]] {
            for _ in 0..3 {
                let mut trail = names.start(names.root(0));
                for name in order {
                    let want = match name {
                        "debug" => Target::Ignored,
                        "v_a" => field("u_a_v"),
                        other => field(other),
                    };
                    assert_eq!(names.resolve(names.root(0), &mut trail, name, b""), want);
                }
            }
        }
        let Target::Object(head) = resolve_first(&mut names, 0, "head") else { panic!() };
        assert_eq!(resolve_in(&mut names, head, "id"), field("meter_id"));
        assert!(matches!(resolve_in(&mut names, head, "x"), Target::Unknown(_)));
        assert_eq!(names.take_unknown(), BTreeMap::from([("head.x".to_owned(), 1)]));
        assert_eq!(names.take_unknown(), BTreeMap::new());
    }

    #[test]
    fn a_path_from_the_top_of_the_message_wins() {
        let (schema, mut names) =
            names("explode = 'readings'\nrename = { id = 'meter_id', 'readings.id' = 'reading_id' }");
        let field = |name| Target::Field(schema.index_of(name).unwrap());
        assert_eq!(names.levels(), 1);
        assert_eq!(resolve_first(&mut names, 0, "id"), field("meter_id"));
        assert_eq!(resolve_first(&mut names, 0, "readings"), Target::Events);
        assert_eq!(resolve_first(&mut names, 1, "id"), field("reading_id"));
    }

    #[test]
    fn unknown_names_are_bounded() {
        let (_, mut names) = names("");
        for k in 0..1_000 {
            resolve_first(&mut names, 0, &format!("x{k}"));
        }
        let counts = names.take_unknown();
        assert_eq!(counts.len(), UNKNOWN_NAMES_MAX + 1);
        assert_eq!(counts.values().sum::<u64>(), 1_000);
        assert_eq!(counts[OTHER_NAMES], 1_000 - UNKNOWN_NAMES_MAX as u64);
    }
}
