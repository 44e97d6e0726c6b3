//! The streams of a job: where each comes from, how its records are written, what they become.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use toml::Spanned;
use wattline_connect::schema_registry::{SchemaRegistry, SchemaRegistryConfig};
use wattline_decode::{AvroDecoder, Limits, Mapping, SchemaFiles, StreamSchema};
use wattline_runtime::port::Position;
use wattline_runtime::stream_schema;
use wattline_sql::{Catalog, Stream};

use super::{Loader, is_own_table};
use crate::adapt::source::name_of_life;
use crate::assets::{self, BUILTIN};
use crate::config::{self, Config};

/// A stream of a loaded project.
#[derive(Debug, Clone)]
pub(crate) struct LoadedStream {
    pub(crate) name: String,
    pub(crate) config: config::Stream,
    pub(crate) schema: Arc<StreamSchema>,
    pub(crate) mapping: Mapping,
    /// With system columns.
    pub(crate) arrow: SchemaRef,
    pub(crate) payload: Payload,
    pub(crate) start: Position,
    pub(crate) oldest_us: i64,
}

/// How the records of a topic are written, and lines of a file.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    Json,
    /// With a schema that each record names: one of a registry if the job has one, else one of these.
    Avro(Arc<SchemaFiles>),
}

impl LoadedStream {
    /// Bounds of what the decoder accepts.
    pub(crate) fn limits(&self) -> Limits {
        let bytes = usize::try_from(self.config.record_bytes_max.0).unwrap_or(usize::MAX);
        Limits { record_bytes_max: bytes, ..Limits::default() }
    }

    /// The name that its lanes have, if it is a topic.
    pub(crate) fn lane_topic(&self) -> Option<String> {
        let life = self.config.topic_life.as_ref().map(|life| *life.get_ref());
        self.config.topic.as_deref().map(|topic| name_of_life(topic, life))
    }

    /// As rules see it.
    pub(crate) fn for_rules(&self) -> Stream {
        Stream {
            name: self.name.clone(),
            schema: self.arrow.clone(),
            event_time: self.schema.event_time_field().name.clone(),
            key: self.schema.key.clone(),
            delay_ms: self.config.delay.0,
        }
    }
}

impl Loader {
    pub(super) fn streams(&mut self, file: &str, config: &Config, catalog: &mut Catalog) -> Vec<LoadedStream> {
        if let Some(registry) = &config.schema_registry {
            let settings = SchemaRegistryConfig { url: registry.url.get_ref().clone(), login: None };
            if let Err(error) = SchemaRegistry::new(settings) {
                self.mistake("WL-1119", file, registry.url.span(), error.to_string(), None);
            }
        }
        let mut loaded = Vec::new();
        for (name, stream) in &config.streams {
            if is_own_table(name) {
                let message = format!("`{name}` is a table of wattline itself");
                let help = "give the stream another name".to_owned();
                self.mistake("WL-1110", file, stream.span(), message, Some(help));
                continue;
            }
            let Some(stream) = self.stream(file, name, stream, config) else { continue };
            let added = catalog.add_stream(stream.for_rules());
            if let Err(error) = added {
                self.mistake("WL-1110", file, config.streams[name].span(), error.to_string(), None);
            }
            loaded.push(stream);
        }
        loaded
    }

    fn stream(
        &mut self,
        file: &str,
        name: &str,
        spanned: &Spanned<config::Stream>,
        config: &Config,
    ) -> Option<LoadedStream> {
        let before = self.diagnostics.len();
        let stream = spanned.get_ref();
        if stream.topic.is_some() == stream.files.is_some() {
            let message = format!("stream `{name}` needs either `topic` or `files`");
            self.mistake("WL-1111", file, spanned.span(), message, None);
        }
        let of_topics = [
            ("on_gap", stream.on_gap.as_ref().map(Spanned::span)),
            ("topic_life", stream.topic_life.as_ref().map(Spanned::span)),
        ];
        for (key, span) in of_topics.into_iter().filter(|_| stream.files.is_some()) {
            let Some(span) = span else { continue };
            let message = format!("stream `{name}` reads files, and `{key}` is said of topics");
            self.mistake("WL-1118", file, span, message, Some("remove it".to_owned()));
        }
        let start = self.start(file, stream);
        let oldest_us = instant_us(stream.oldest.get_ref());
        if oldest_us.is_none() {
            let message = format!("`{}` is not an instant", stream.oldest.get_ref());
            self.mistake(
                "WL-1112",
                file,
                stream.oldest.span(),
                message,
                Some("write it as `2000-01-02T00:00:00Z`".into()),
            );
        }
        let payload = self.payload(file, name, spanned, config);
        let schema = self.schema(file, &stream.schema)?;
        let mapping = stream.mapping.as_ref().map(|m| m.get_ref().clone()).unwrap_or_default();
        let mut problems = mapping.validate(&schema);
        if matches!(payload, Some(Payload::Avro(_))) {
            problems.extend(AvroDecoder::mapping_problems(&mapping));
        }
        for problem in problems {
            let span = stream.mapping.as_ref().map_or(0..0, Spanned::span);
            let message = format!("mapping of stream `{name}`, `{}`: {}", problem.key, problem.message);
            let span = self.key_span(file, &span, &problem.key);
            self.mistake("WL-1114", file, span, message, problem.help);
        }
        if self.diagnostics.len() > before {
            return None;
        }
        Some(LoadedStream {
            name: name.to_owned(),
            arrow: stream_schema(&schema.arrow),
            schema: Arc::new(schema),
            mapping,
            payload: payload?,
            start: start?,
            oldest_us: oldest_us?,
            config: stream.clone(),
        })
    }

    fn payload(
        &mut self,
        file: &str,
        name: &str,
        spanned: &Spanned<config::Stream>,
        config: &Config,
    ) -> Option<Payload> {
        let stream = spanned.get_ref();
        let format = stream.format.as_ref().map(|format| format.get_ref().as_str());
        let is_known = match (&stream.topic, format) {
            (_, None) => true,
            (Some(_), Some(format)) => matches!(format, "json" | "avro"),
            (None, Some(format)) => file_format(format).is_some(),
        };
        if let Some(format) = stream.format.as_ref().filter(|_| !is_known) {
            let (what, help) = match stream.topic.is_some() {
                true => ("a format of records", "write `json` or `avro`"),
                false => ("a file format", "write `ndjson`, `csv` or `parquet`"),
            };
            let message = format!("`{}` is not {what}", format.get_ref());
            self.mistake("WL-1113", file, format.span(), message, Some(help.into()));
            return None;
        }
        let is_avro = stream.topic.is_some() && format == Some("avro");
        if let Some(first) = stream.writer_schemas.first()
            && (!is_avro || config.schema_registry.is_some())
        {
            let message = match is_avro {
                true => format!("stream `{name}` has `writer_schemas`, and the job a schema registry, which has them"),
                false => format!("stream `{name}` has `writer_schemas`, and its records name none"),
            };
            let help = if is_avro { "remove it" } else { "remove it, or write `format = \"avro\"`" };
            self.mistake("WL-1119", file, first.span(), message, Some(help.to_owned()));
            return None;
        }
        match (is_avro, &config.schema_registry) {
            (false, _) => Some(Payload::Json),
            (true, Some(_)) => Some(Payload::Avro(Arc::default())),
            (true, None) => self.schema_files(file, stream),
        }
    }

    /// The schemas that records of a stream may name without a registry: its own, and those that it mentions.
    fn schema_files(&mut self, file: &str, stream: &config::Stream) -> Option<Payload> {
        let paths: Vec<&Spanned<String>> = std::iter::once(&stream.schema).chain(&stream.writer_schemas).collect();
        let mut texts = Vec::new();
        for path in &paths {
            match self.schema_text(path.get_ref()) {
                Ok(text) => texts.push(text),
                Err((message, help)) => self.mistake("WL-1116", file, path.span(), message, help),
            }
        }
        if texts.len() < paths.len() {
            return None;
        }
        let borrowed: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        match SchemaFiles::new(&borrowed) {
            Ok(files) => Some(Payload::Avro(Arc::new(files))),
            Err((number, what)) => {
                let message = format!("`{}` is no Avro schema: {what}", paths[number].get_ref());
                self.mistake("WL-1119", file, paths[number].span(), message, None);
                None
            }
        }
    }

    /// What two streams read would be of the one or of the other.
    pub(super) fn check_sources(&mut self, file: &str, streams: &[LoadedStream], config: &Config) {
        let mut known: BTreeMap<String, &str> = BTreeMap::new();
        for stream in streams {
            let sources = match (&stream.config.topic, &stream.config.files) {
                (Some(topic), _) => vec![format!("the topic `{topic}`")],
                (None, Some(pattern)) => {
                    let pattern = self.folder.join(pattern.get_ref()).to_string_lossy().into_owned();
                    // What cannot be found is told when it is read.
                    let files = wattline_connect::files::find(&pattern).unwrap_or_default();
                    files.iter().map(|path| format!("the file `{}`", path.display())).collect()
                }
                (None, None) => Vec::new(),
            };
            let taken = sources.iter().find_map(|source| Some((source, *known.get(source)?)));
            if let Some((source, other)) = taken {
                let message = format!("the streams `{other}` and `{}` both read {source}", stream.name);
                let help = "let each stream read what no other does".to_owned();
                self.mistake("WL-1117", file, config.streams[&stream.name].span(), message, Some(help));
            }
            known.extend(sources.into_iter().map(|source| (source, stream.name.as_str())));
        }
    }

    /// The place of a mapping's key within the section, as near as text search gets.
    fn key_span(&self, file: &str, section: &std::ops::Range<usize>, key: &str) -> std::ops::Range<usize> {
        let last = key.rsplit('.').next().unwrap_or(key);
        let text = self.texts.get(file).and_then(|text| text.get(section.clone())).unwrap_or_default();
        match text.find(last) {
            Some(at) => section.start + at..section.start + at + last.len(),
            None => section.clone(),
        }
    }

    fn start(&mut self, file: &str, stream: &config::Stream) -> Option<Position> {
        let text = stream.start.get_ref().as_str();
        let position = match text {
            "earliest" => Some(Position::Earliest),
            "latest" => Some(Position::Latest),
            other => instant_us(other).map(|us| Position::Timestamp(us.div_euclid(1_000))),
        };
        let wrong_for_files = stream.files.is_some() && position.is_some_and(|p| p != Position::Earliest);
        if position.is_none() || wrong_for_files {
            let message = format!("`{text}` is not a place to start from");
            let help = if stream.files.is_some() {
                "files start at `earliest`"
            } else {
                "write `earliest`, `latest` or an instant such as `2026-03-01T00:00:00Z`"
            };
            self.mistake("WL-1115", file, stream.start.span(), message, Some(help.to_owned()));
            return None;
        }
        position
    }

    /// The text of a schema, or why there is none and what to write.
    fn schema_text(&self, path: &str) -> Result<String, (String, Option<String>)> {
        match path.strip_prefix(BUILTIN) {
            Some(name) => assets::schema(name).ok_or_else(|| {
                let known = assets::schema_names();
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                (format!("there is no shipped schema `{name}`"), config::nearest(name, &known))
            }),
            None => std::fs::read_to_string(self.folder.join(path))
                .map_err(|error| (format!("schema `{path}` cannot be read: {error}"), None)),
        }
    }

    fn schema(&mut self, file: &str, reference: &Spanned<String>) -> Option<StreamSchema> {
        let path = reference.get_ref();
        let text = match self.schema_text(path) {
            Ok(text) => text,
            Err((message, help)) => {
                self.mistake("WL-1116", file, reference.span(), message, help);
                return None;
            }
        };
        let parsed = StreamSchema::parse(&text, path);
        self.texts.insert(path.clone(), text);
        match parsed {
            Ok(schema) => Some(schema),
            Err(problems) => {
                for problem in problems {
                    self.mistake("WL-1120", path, problem.span, problem.message, problem.help);
                }
                None
            }
        }
    }
}

/// Reads an RFC 3339 instant as microseconds since the epoch.
pub(crate) fn instant_us(text: &str) -> Option<i64> {
    let array = arrow::array::StringArray::from(vec![text]);
    let zoned = text.ends_with('Z') || text.rfind(['+', '-']).is_some_and(|at| at > 10);
    let kind = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()));
    let cast = arrow::compute::cast(&array, &kind).ok()?;
    let instants = cast.as_primitive::<TimestampMicrosecondType>();
    (zoned && instants.is_valid(0)).then(|| instants.value(0))
}

/// Reads the name of a file format.
pub(crate) fn file_format(name: &str) -> Option<wattline_connect::files::FileFormat> {
    match name {
        "ndjson" | "json" | "jsonl" => Some(wattline_connect::files::FileFormat::Ndjson),
        "csv" => Some(wattline_connect::files::FileFormat::Csv),
        "parquet" => Some(wattline_connect::files::FileFormat::Parquet),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_need_a_zone() {
        assert_eq!(instant_us("1970-01-01T00:00:01Z"), Some(1_000_000));
        assert_eq!(instant_us("1970-01-01T08:00:01+08:00"), Some(1_000_000));
        assert_eq!(instant_us("1970-01-01T00:00:01"), None);
        assert_eq!(instant_us("yesterday"), None);
    }
}
