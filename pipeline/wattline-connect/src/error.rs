//! The one error type of this crate: what failed, where, and what to do about it.
//!
//! The runtime acts on [`Error::kind`] and [`Error::retry`] only. Values of client properties never
//! appear in a message, because some of them are secrets; the name of a property does.

use std::path::PathBuf;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use wattline_core::error::{Kind, Retry};
use wattline_core::record::LaneId;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong between wattline and the world.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No broker could be reached or none let us in.
    #[error(
        "no broker answered at `{bootstrap_servers}` within {} s ({reason}): start Kafka, or correct the broker address, \
         TLS and SASL settings", timeout.as_secs_f64()
    )]
    NoBroker {
        /// The addresses tried.
        bootstrap_servers: String,
        /// How long was waited.
        timeout: Duration,
        /// The last thing the client library said.
        reason: String,
    },
    /// The client library does not know a property or does not take its value.
    #[error("kafka property `{name}` is refused: {reason}: see the property list of librdkafka 2.12")]
    Property {
        /// Name of the property; empty if the refusal concerns a combination.
        name: String,
        /// The library's words.
        reason: String,
    },
    /// A property that wattline must control.
    #[error("kafka property `{name}` cannot be set: {reason}: remove it")]
    ReservedProperty {
        /// Name of the property.
        name: String,
        /// Why wattline sets it itself.
        reason: &'static str,
    },
    /// A topic that must exist does not.
    #[error(
        "topic `{topic}` does not exist at `{bootstrap_servers}`: create it, for example with `kafka-topics.sh \
         --bootstrap-server {bootstrap_servers} --create --topic {topic} --partitions 4`"
    )]
    TopicMissing {
        /// The topic.
        topic: String,
        /// Where it was looked for.
        bootstrap_servers: String,
    },
    /// The broker does not let this user use the topic.
    #[error("topic `{topic}` may not be read or described by this user: grant READ and DESCRIBE on it")]
    TopicForbidden {
        /// The topic.
        topic: String,
    },
    /// A topic could not be created.
    #[error(
        "topic `{topic}` could not be created: {code}: check its settings, the number of brokers and the right to CREATE"
    )]
    TopicCreation {
        /// The topic.
        topic: String,
        /// The broker's answer.
        code: RDKafkaErrorCode,
    },
    /// The topic by which slots reach each other has another number of partitions than the job has slots.
    #[error(
        "topic `{topic}` has {partitions} partitions and the job {slots} slots: how many slots a job has cannot change, as its state \
         is divided by them; write the number again that the job began with, and if it is the topic that has changed, start a new job"
    )]
    SlotsChanged {
        /// The topic.
        topic: String,
        /// Its partitions.
        partitions: i32,
        /// Slots of the configuration.
        slots: u32,
    },
    /// The client library or the broker refused an operation.
    #[error("kafka: {doing} failed: {source}")]
    Kafka {
        /// What was being done, with the topic or group concerned.
        doing: String,
        /// The library's error.
        #[source]
        source: KafkaError,
    },
    /// The client instance is unusable; a new one must be made.
    #[error("kafka client stopped for good: {reason}: it must be opened anew")]
    ClientDead {
        /// The library's words.
        reason: String,
    },
    /// An operation names a lane that is not assigned to this process (any more).
    #[error("lane `{lane}` is not assigned to this process: wait for its assignment")]
    NotAssigned {
        /// The lane.
        lane: LaneId,
    },
    /// Another process has taken the place of this one in the consumer group.
    #[error(
        "another process with slot `{slot}` of job `{job}` has joined consumer group `{group}` as `{instance_id}`, in place of \
         this one: stop one of the two, or give each its own slot"
    )]
    MemberFenced {
        /// The job.
        job: String,
        /// The slot that both have.
        slot: String,
        /// The consumer group.
        group: String,
        /// The name of the static member that both are.
        instance_id: String,
    },
    /// Another process publishes alerts under the same transactional id.
    #[error(
        "transactional id `{transactional_id}` is used by another process: stop one of the two, or give each its own slot"
    )]
    PublisherFenced {
        /// The id both use.
        transactional_id: String,
    },
    /// A transaction was rolled back; nothing of it is visible.
    #[error("the transaction on `{topic}` was rolled back ({reason}): it can be tried again")]
    TransactionAborted {
        /// The alert topic.
        topic: String,
        /// Why.
        reason: String,
    },
    /// One alert cannot be sent as it is.
    #[error(
        "the alert with key `{key}` ({bytes} bytes) is refused by topic `{topic}`: raise `message.max.bytes` of the \
         publisher and `max.message.bytes` of the topic"
    )]
    AlertTooLarge {
        /// The alert topic.
        topic: String,
        /// Fingerprint of the alert.
        key: String,
        /// Size of its payload.
        bytes: usize,
    },
    /// The consumer of an embedded broker does not keep up at all.
    #[error("the consumer has not moved on `{lane}` for {} s: the feeder gives up", waited.as_secs())]
    FeederStalled {
        /// Where the feeder waits.
        lane: LaneId,
        /// How long it waited.
        waited: Duration,
    },
    /// A path that does not exist.
    #[error("file `{}` does not exist: check the path (in a configuration it is relative to its folder)", path.display())]
    NoSuchFile {
        /// The path as given.
        path: PathBuf,
    },
    /// A pattern that matches no file.
    #[error("no file matches `{pattern}`: check the path (in a configuration it is relative to its folder)")]
    NoMatch {
        /// The pattern as given.
        pattern: String,
    },
    /// A pattern that cannot be read.
    #[error("`{pattern}` is not a file pattern: {reason}")]
    Pattern {
        /// The pattern as given.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file whose format its name does not tell.
    #[error(
        "the format of `{}` is not known: name it *.ndjson, *.jsonl, *.json, *.csv (also with .gz or .zst) or *.parquet, or \
         state the format", path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refuses a file.
    #[error("cannot {doing} `{}`: {source}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// A compressed file that cannot be unpacked.
    #[error("`{}` cannot be unpacked after record {record}: {source}: the file is corrupt or cut short", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Number of the record at which reading stopped, counted from 0.
        record: i64,
        /// The unpacker's error.
        #[source]
        source: std::io::Error,
    },
    /// A Parquet file that cannot be read.
    #[error("`{}` cannot be read as parquet at row {row}: {reason}", path.display())]
    ParquetInput {
        /// The file.
        path: PathBuf,
        /// Number of the row at which reading stopped, counted from 0.
        row: i64,
        /// The reader's words.
        reason: String,
    },
    /// A store location or option that cannot be used.
    #[error("store `{location}`: {detail}")]
    StoreSettings {
        /// What the user wrote.
        location: String,
        /// What is wrong and what to write.
        detail: String,
    },
    /// The check at start found the store unfit.
    #[error("`{location}` cannot be used as a store: {detail}")]
    StoreRefused {
        /// What the user wrote.
        location: String,
        /// What is wrong and what to do.
        detail: String,
    },
    /// The store did not do one operation; it may or may not have happened.
    #[error("cannot {operation} `{path}`: {source}")]
    Store {
        /// The operation.
        operation: &'static str,
        /// The object, with the location of its root.
        path: String,
        /// The store's error.
        #[source]
        source: Box<object_store::Error>,
    },
    /// A column that an archive table cannot take.
    #[error("table `{table}`, column `{column}`: {detail}")]
    TableSettings {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// What is wrong and what to write.
        detail: String,
    },
    /// A Delta table that is not laid out or versioned as this program writes it.
    #[error("table `{table}` cannot be written: {detail}")]
    TableForeign {
        /// The table.
        table: String,
        /// What is different and what to do.
        detail: String,
    },
    /// A table that the archive does not have.
    #[error("the archive `{archive}` has no table `{table}`: `wattline archive list` shows what it has")]
    UnknownTable {
        /// Location of the archive.
        archive: String,
        /// The table.
        table: String,
    },
    /// The Delta log of a table could not be read or tended.
    #[error("table `{table}`: cannot {operation}: {source}")]
    Delta {
        /// The table.
        table: String,
        /// The operation.
        operation: &'static str,
        /// The library's error.
        #[source]
        source: Box<deltalake_core::DeltaTableError>,
    },
    /// Other writers were faster on every try.
    #[error(
        "table `{table}`: {attempts} commits in a row met another writer's version: stop the other writer, or wait"
    )]
    CommitContended {
        /// The table.
        table: String,
        /// Tries made.
        attempts: u32,
    },
    /// A file to be removed is no longer part of its table.
    #[error(
        "table `{table}`: file `{path}` was removed by another writer: plan the change again on the current version"
    )]
    FileGone {
        /// The table.
        table: String,
        /// The file, relative to the table.
        path: String,
    },
    /// A Parquet file of the archive could not be encoded or decoded.
    #[error("parquet file `{path}`: {source}")]
    Parquet {
        /// The file.
        path: String,
        /// The library's error.
        #[source]
        source: Box<parquet::errors::ParquetError>,
    },
    /// Columns could not be brought into the form an operation needs.
    #[error("cannot {operation}: {source}")]
    Columns {
        /// The operation.
        operation: &'static str,
        /// The library's error.
        #[source]
        source: Box<arrow::error::ArrowError>,
    },
    /// A query over archive tables failed inside the query engine.
    #[error("table `{table}` cannot be read: {source}")]
    TableRead {
        /// The table.
        table: String,
        /// The engine's error.
        #[source]
        source: Box<datafusion::error::DataFusionError>,
    },
    /// Background work ended without an answer.
    #[error("background work `{work}` stopped: {source}")]
    Stopped {
        /// What was being done.
        work: &'static str,
        /// Why there is no answer.
        #[source]
        source: tokio::task::JoinError,
    },
    /// An object of the archive is not what a backup must be able to rely upon.
    #[error("object `{path}` of the archive {detail}: `wattline archive verify` says what else is wrong")]
    ArchiveDamaged {
        /// The object, relative to the archive.
        path: String,
        /// What is wrong with it.
        detail: String,
    },
    /// An object of a backup is not what its snapshot says.
    #[error(
        "object `{path}` of the backup {detail}: restore another snapshot, `wattline archive backup --list` shows them"
    )]
    BackupDamaged {
        /// The object, with the location of its store.
        path: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A place for backups that cannot be used as it is, or does not have what was asked for.
    #[error("backups at `{location}`: {detail}")]
    BackupRefused {
        /// The place.
        location: String,
        /// What is wrong and what to do.
        detail: String,
    },
    /// A later backup to the same place has begun before this one had come to its end.
    #[error("backup {number} has no snapshot: backup {by} to the same place began before this one had ended")]
    BackupOvertaken {
        /// Number of this backup.
        number: u64,
        /// Number of the later one.
        by: u64,
    },
    /// An archive into which no backup can be brought back.
    #[error("nothing was restored into `{location}`: {detail}")]
    RestoreRefused {
        /// The archive.
        location: String,
        /// What is wrong and what to do.
        detail: String,
    },
    /// Settings with which no schema registry can be asked.
    #[error("schema registry `{url}`: {detail}")]
    RegistrySettings {
        /// Its address.
        url: String,
        /// What is wrong and what to write.
        detail: String,
    },
    /// A schema registry did not say what it has.
    #[error("the schema registry did not answer `{url}`: {detail}")]
    Registry {
        /// What was asked for.
        url: String,
        /// What came instead.
        detail: String,
    },
    /// A reference table whose content cannot be taken.
    #[error("{}:{line}: column `{column}`: {detail}", path.display())]
    Reference {
        /// The file.
        path: PathBuf,
        /// Line in the file, counted from 1 (row number for Parquet).
        line: u64,
        /// The column; empty if the line as a whole is meant.
        column: String,
        /// What is wrong and what to write.
        detail: String,
    },
}

impl Error {
    /// Whose move it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Property { .. }
            | Self::ReservedProperty { .. }
            | Self::TopicMissing { .. }
            | Self::TopicForbidden { .. }
            | Self::TopicCreation { .. }
            | Self::SlotsChanged { .. }
            | Self::NoSuchFile { .. }
            | Self::NoMatch { .. }
            | Self::Pattern { .. }
            | Self::UnknownFormat { .. }
            | Self::StoreSettings { .. }
            | Self::StoreRefused { .. }
            | Self::TableSettings { .. }
            | Self::TableForeign { .. }
            | Self::UnknownTable { .. }
            | Self::BackupRefused { .. }
            | Self::RestoreRefused { .. }
            | Self::RegistrySettings { .. }
            | Self::Reference { .. } => Kind::Invalid,
            Self::AlertTooLarge { .. }
            | Self::Corrupt { .. }
            | Self::ParquetInput { .. }
            | Self::ArchiveDamaged { .. }
            | Self::BackupDamaged { .. }
            | Self::Parquet { .. } => Kind::Data,
            Self::NoBroker { .. }
            | Self::Kafka { .. }
            | Self::ClientDead { .. }
            | Self::TransactionAborted { .. }
            | Self::File { .. }
            | Self::Store { .. }
            | Self::Delta { .. }
            | Self::CommitContended { .. }
            | Self::FileGone { .. }
            | Self::Registry { .. }
            | Self::TableRead { .. } => Kind::Unavailable,
            Self::NotAssigned { .. }
            | Self::MemberFenced { .. }
            | Self::PublisherFenced { .. }
            | Self::BackupOvertaken { .. } => Kind::Fenced,
            Self::FeederStalled { .. } => Kind::Exhausted,
            Self::Columns { .. } | Self::Stopped { .. } => Kind::Internal,
        }
    }

    /// Whether the same call may succeed later.
    pub fn retry(&self) -> Retry {
        match self {
            Self::NoBroker { .. }
            | Self::Kafka { .. }
            | Self::TransactionAborted { .. }
            | Self::File { .. }
            | Self::Store { .. }
            | Self::Delta { .. }
            | Self::CommitContended { .. }
            | Self::FileGone { .. }
            | Self::Registry { .. }
            | Self::TableRead { .. } => Retry::Backoff,
            Self::ClientDead { .. } | Self::MemberFenced { .. } | Self::PublisherFenced { .. } => Retry::AfterRestore,
            Self::Property { .. }
            | Self::ReservedProperty { .. }
            | Self::TopicMissing { .. }
            | Self::TopicForbidden { .. }
            | Self::TopicCreation { .. }
            | Self::SlotsChanged { .. }
            | Self::NotAssigned { .. }
            | Self::AlertTooLarge { .. }
            | Self::FeederStalled { .. }
            | Self::NoSuchFile { .. }
            | Self::NoMatch { .. }
            | Self::Pattern { .. }
            | Self::UnknownFormat { .. }
            | Self::Corrupt { .. }
            | Self::ParquetInput { .. }
            | Self::StoreSettings { .. }
            | Self::StoreRefused { .. }
            | Self::TableSettings { .. }
            | Self::TableForeign { .. }
            | Self::UnknownTable { .. }
            | Self::Parquet { .. }
            | Self::Columns { .. }
            | Self::Stopped { .. }
            | Self::ArchiveDamaged { .. }
            | Self::BackupDamaged { .. }
            | Self::BackupRefused { .. }
            | Self::BackupOvertaken { .. }
            | Self::RestoreRefused { .. }
            | Self::RegistrySettings { .. }
            | Self::Reference { .. } => Retry::Never,
        }
    }
}
