//! From the name of a JSON member to what becomes of it, in about a nanosecond.
//!
//! Payloads of one stream nearly always name their members in the same order, so each name remembers which one followed
//! it last time, and the guess is one comparison of bytes, with the quotes and the colon around the name: names are more
//! than half of a typical payload, and a right guess does not even scan them. A wrong guess costs a hash lookup and
//! corrects itself, also when members are now there and now not. Guesses never change a result.
//!
//! Unknown names are counted, but no sender can make the memory grow: after [`UNKNOWN_NAMES_MAX`] distinct ones the rest
//! are counted together under [`OTHER_NAMES`].

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::dead_letter::excerpt;
use crate::mapping::Mapping;
use crate::scan::Cursor;
use crate::schema::StreamSchema;

/// Distinct unknown names counted by name.
const UNKNOWN_NAMES_MAX: usize = 256;
/// Under this all further unknown names are counted.
const OTHER_NAMES: &str = "(others)";
/// No guess yet; never a valid index.
const NO_GUESS: u32 = u32::MAX;

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

impl Trail {
    /// Before the first member.
    pub(crate) const fn start() -> Self {
        Self(NO_GUESS)
    }
}

/// All names that payloads of a stream may use, and those they did use.
#[derive(Debug)]
pub(crate) struct Names {
    objects: Vec<ObjectNames>,
    /// The object at each level of the explode path; the last one is the event.
    roots: Vec<usize>,
    unknown: Vec<(String, u64)>,
}

#[derive(Debug)]
struct ObjectNames {
    /// Dotted path of the object, with a dot at its end unless it is a root.
    path: String,
    members: Vec<MemberName>,
    index: HashMap<Box<str>, u32>,
    first: u32,
}

#[derive(Debug)]
struct MemberName {
    name: Box<str>,
    /// The name as it stands before its value, `"name":`; empty if the name cannot be written without escapes.
    written: Box<str>,
    target: Target,
    next: u32,
}

impl Names {
    /// The names of a stream under its mapping.
    pub(crate) fn new(schema: &StreamSchema, mapping: &Mapping) -> Self {
        let mut names = Self { objects: Vec::new(), roots: Vec::new(), unknown: vec![(OTHER_NAMES.to_owned(), 0)] };
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

    /// What becomes of the member at the cursor, if it is the one that is guessed: then the cursor is moved to its value.
    #[inline]
    pub(crate) fn guess(&mut self, object: usize, trail: &mut Trail, cursor: &mut Cursor<'_>) -> Option<Target> {
        let names = &self.objects[object];
        let guess = names.members.get(trail.0 as usize).map_or(names.first, |member| member.next);
        let member = names.members.get(guess as usize)?;
        if !cursor.eat_text(&member.written) {
            return None;
        }
        trail.0 = guess;
        if let Target::Unknown(slot) = member.target {
            self.unknown[slot].1 += 1;
        }
        Some(member.target)
    }

    /// What becomes of the member that follows `trail` in an object. An unknown one is counted.
    #[inline]
    pub(crate) fn resolve(&mut self, object: usize, trail: &mut Trail, name: &str) -> Target {
        let names = &self.objects[object];
        let guess = names.members.get(trail.0 as usize).map_or(names.first, |member| member.next);
        let target = match names.members.get(guess as usize) {
            Some(member) if *member.name == *name => {
                trail.0 = guess;
                member.target
            }
            _ => self.look_up(object, trail, name),
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

    fn look_up(&mut self, object: usize, trail: &mut Trail, name: &str) -> Target {
        let known = self.objects[object].index.get(name).copied();
        let Some(found) = known.or_else(|| self.learn_unknown(object, name)) else {
            return Target::Unknown(0);
        };
        let names = &mut self.objects[object];
        match names.members.get_mut(trail.0 as usize) {
            Some(previous) => previous.next = found,
            None => names.first = found,
        }
        trail.0 = found;
        names.members[found as usize].target
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
            let known = self.objects[object].index.get(name).map(|at| &self.objects[object].members[*at as usize]);
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
        self.objects.push(ObjectNames { path, members: Vec::new(), index: HashMap::new(), first: NO_GUESS });
        self.objects.len() - 1
    }

    fn insert(&mut self, object: usize, name: &str, target: Target) {
        let names = &mut self.objects[object];
        if let Some(at) = names.index.get(name) {
            names.members[*at as usize].target = target;
            return;
        }
        let at = u32::try_from(names.members.len()).unwrap_or(NO_GUESS);
        let plain = !name.contains(|c: char| c == '"' || c == '\\' || c.is_ascii_control());
        let written = if plain { format!("\"{name}\":") } else { String::new() };
        names.members.push(MemberName { name: name.into(), written: written.into(), target, next: NO_GUESS });
        names.index.insert(name.into(), at);
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

    #[test]
    fn any_order_gives_the_same_targets() {
        let (schema, mut names) = names("rename = { v_a = 'u_a_v', 'head.id' = 'meter_id' }\nignore = ['debug']");
        let field = |name| Target::Field(schema.index_of(name).unwrap());
        for order in [["ts", "v_a", "u_a_v", "debug"], ["u_a_v", "debug", "v_a", "ts"], ["ts", "ts", "ts", "v_a"]] {
            for _ in 0..3 {
                let mut trail = Trail::start();
                for name in order {
                    let want = match name {
                        "debug" => Target::Ignored,
                        "v_a" => field("u_a_v"),
                        other => field(other),
                    };
                    assert_eq!(names.resolve(names.root(0), &mut trail, name), want);
                }
            }
        }
        let Target::Object(head) = names.resolve(names.root(0), &mut Trail::start(), "head") else { panic!() };
        assert_eq!(names.resolve(head, &mut Trail::start(), "id"), field("meter_id"));
        assert!(matches!(names.resolve(head, &mut Trail::start(), "x"), Target::Unknown(_)));
        assert_eq!(names.take_unknown(), BTreeMap::from([("head.x".to_owned(), 1)]));
        assert_eq!(names.take_unknown(), BTreeMap::new());
    }

    #[test]
    fn a_path_from_the_top_of_the_message_wins() {
        let (schema, mut names) =
            names("explode = 'readings'\nrename = { id = 'meter_id', 'readings.id' = 'reading_id' }");
        let field = |name| Target::Field(schema.index_of(name).unwrap());
        assert_eq!(names.levels(), 1);
        assert_eq!(names.resolve(names.root(0), &mut Trail::start(), "id"), field("meter_id"));
        assert_eq!(names.resolve(names.root(0), &mut Trail::start(), "readings"), Target::Events);
        assert_eq!(names.resolve(names.root(1), &mut Trail::start(), "id"), field("reading_id"));
    }

    #[test]
    fn unknown_names_are_bounded() {
        let (_, mut names) = names("");
        for k in 0..1_000 {
            names.resolve(names.root(0), &mut Trail::start(), &format!("x{k}"));
        }
        let counts = names.take_unknown();
        assert_eq!(counts.len(), UNKNOWN_NAMES_MAX + 1);
        assert_eq!(counts.values().sum::<u64>(), 1_000);
        assert_eq!(counts[OTHER_NAMES], 1_000 - UNKNOWN_NAMES_MAX as u64);
    }
}
