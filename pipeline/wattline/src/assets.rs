//! What the binary carries: shipped rules, schemas, sample data, the starter project.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "../../sql"]
#[include = "*.sql"]
#[include = "*.test.toml"]
#[exclude = "reports/*"]
struct Sql;

#[derive(RustEmbed)]
#[folder = "../../sql/reports"]
#[include = "*.sql"]
struct Reports;

#[derive(RustEmbed)]
#[folder = "../../sql/reference"]
struct Tables;

#[derive(RustEmbed)]
#[folder = "../../schemas"]
struct Schemas;

#[derive(RustEmbed)]
#[folder = "../../data/sample"]
#[exclude = "*.py"]
struct Sample;

#[derive(RustEmbed)]
#[folder = "assets"]
struct Starter;

/// How a path says that something is carried by the binary.
pub(crate) const BUILTIN: &str = "builtin:";

fn text(data: Cow<'static, [u8]>) -> String {
    String::from_utf8_lossy(&data).into_owned()
}

/// Shipped rule files and their tests by path below `sql/`.
pub(crate) fn rule_files() -> BTreeMap<String, String> {
    Sql::iter().filter_map(|path| Some((path.to_string(), text(Sql::get(&path)?.data)))).collect()
}

/// The text of a shipped rule, by its path below `sql/` without `.sql`.
pub(crate) fn rule(path: &str) -> Option<String> {
    Sql::get(&format!("{path}.sql")).map(|file| text(file.data))
}

/// A table that shipped rules read.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KnownTable {
    /// What a row is.
    pub(crate) says: String,
    /// Whether its rows come with the program: limits of standards and the like. Of others it carries an example.
    #[serde(default)]
    pub(crate) shipped: bool,
    /// Type of each column.
    pub(crate) columns: BTreeMap<String, String>,
}

/// The tables that shipped rules read, by name.
pub(crate) fn known_tables() -> &'static BTreeMap<String, KnownTable> {
    static TABLES: LazyLock<BTreeMap<String, KnownTable>> = LazyLock::new(|| {
        let text = Tables::get("tables.toml").map(|file| text(file.data)).unwrap_or_default();
        toml::from_str(&text).expect("the tables of the program are described as they are read")
    });
    &TABLES
}

/// Rows of a known table as CSV: those that come with the program, or an example.
pub(crate) fn table_rows(name: &str) -> Option<Cow<'static, [u8]>> {
    Tables::get(&format!("{name}.csv")).map(|file| file.data)
}

/// Shipped reports by file name.
pub(crate) fn reports() -> BTreeMap<String, String> {
    Reports::iter().filter_map(|path| Some((path.to_string(), text(Reports::get(&path)?.data)))).collect()
}

/// A shipped schema by the name of its stream.
pub(crate) fn schema(name: &str) -> Option<String> {
    Schemas::get(&format!("{name}.avsc")).map(|file| text(file.data))
}

/// Names of the shipped stream schemas.
pub(crate) fn schema_names() -> Vec<String> {
    Schemas::iter().filter_map(|path| Some(path.strip_suffix(".avsc")?.to_owned())).collect()
}

/// A file of the bundled sample.
pub(crate) fn sample(path: &str) -> Option<Cow<'static, [u8]>> {
    Sample::get(path).map(|file| file.data)
}

/// Paths of the bundled sample.
pub(crate) fn sample_paths() -> Vec<String> {
    Sample::iter().map(|path| path.to_string()).collect()
}

/// The configuration of the demo.
pub(crate) fn demo_config() -> String {
    Starter::get("demo.toml").map(|file| text(file.data)).unwrap_or_default()
}

/// The files of the starter project, by path below its folder.
pub(crate) fn starter() -> BTreeMap<String, Vec<u8>> {
    Starter::iter()
        .filter_map(|path| {
            let below = path.strip_prefix("init/")?.to_owned();
            Some((below, Starter::get(&path)?.data.into_owned()))
        })
        .collect()
}
