//! The command line.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use wattline_core::time::parse_duration_ms;

use crate::config::{HumanTime, Scalar};

/// Stream processing for power companies: SQL rules over Kafka, Parquet tables and alerts.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, after_help = "Exit status: 0 done, 1 the answer is no, 2 could not run.")]
pub(crate) struct Cli {
    /// How log lines on stderr look. RUST_LOG chooses what is logged (default: info).
    #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true)]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What `query` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum QueryFormat {
    /// A table for people.
    Text,
    /// One JSON object a row.
    Json,
    /// CSV with a header line.
    Csv,
}

/// The configuration of a job.
#[derive(Debug, Args)]
pub(crate) struct ConfigArg {
    /// The job's configuration.
    #[arg(short, long, default_value = "wattline.toml", value_name = "FILE")]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the shipped rules over bundled real data, through a Kafka broker inside this process.
    Demo(DemoArgs),
    /// Write a commented starter project that runs as it is.
    Init(InitArgs),
    /// Report every mistake in configuration, schemas and rules, with its place and what to write instead.
    Check(CheckArgs),
    /// Run the tests beside the rules: through the streaming engine and through plain DataFusion.
    Test(TestArgs),
    /// Show how a rule is run: stream, operators, state per key, when its rows become final.
    Explain(ExplainArgs),
    /// Run the job until its input ends or it is told to stop (Ctrl-C, SIGTERM).
    Run(RunArgs),
    /// Have the running job of this folder go on with the rules that now stand there, if they are right; of a job of several slots its processes here.
    Apply(ApplyArgs),
    /// Query the archive with SQL.
    Query(QueryArgs),
    /// Look at the rules: what there are, what each does, which verdicts change between two.
    #[command(subcommand)]
    Rules(RulesCommand),
    /// Run a rule over the events of the archive, as plain SQL: print its rows or what changes against another, or restate a period. Or redeem dead letters.
    Replay(ReplayArgs),
    /// Look at the alerts of the archive.
    #[command(subcommand)]
    Alerts(AlertsCommand),
    /// Ask the archive what is asked again and again: reports that come with the program.
    #[command(subcommand)]
    Reports(ReportsCommand),
    /// Look at the tables of the archive, prove that it is whole, back it up and bring it back, delete what nothing needs.
    #[command(subcommand)]
    Archive(ArchiveCommand),
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Where the archive goes; emptied first if an earlier demo made it.
    #[arg(long, default_value = "wattline-demo", value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The folder to make; must not exist or be empty.
    pub(crate) folder: PathBuf,
    /// The job of `wattline demo` with its data as files, instead of the starter: weeks of readings, metrics and transactions to try rules on.
    #[arg(long)]
    pub(crate) sample: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    /// Refuse rules without description, owner, standard with its edition (or "internal"), or test.
    #[arg(long)]
    pub(crate) strict: bool,
    /// What to print.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) format: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Only cases whose name, as it is printed (`rule::case`), contains one of these; of a rule file, `sql/rule.sql`, those beside it.
    pub(crate) filter: Vec<String>,
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    /// Test all shipped rules, without a configuration.
    #[arg(long)]
    pub(crate) builtin: bool,
    /// What to print.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) format: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Id of the rule.
    pub(crate) rule: String,
    #[command(flatten)]
    pub(crate) config: ConfigArg,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    /// Stop when everything that is in the topics now has been processed; every window closes.
    #[arg(long)]
    pub(crate) until_end: bool,
    #[cfg(debug_assertions)]
    #[command(flatten)]
    pub(crate) crash: crate::adapt::crash_points::CrashArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    /// How long to wait for the job's answer, and in a job of several slots until all of them run the rules.
    #[arg(long, value_name = "DURATION", default_value = "60 seconds", value_parser = human_time)]
    pub(crate) wait: HumanTime,
    /// In a job of several slots: be content when the processes of this folder run the rules, whatever other processes do.
    #[arg(long)]
    pub(crate) here: bool,
}

fn human_time(text: &str) -> Result<HumanTime, String> {
    parse_duration_ms(text).map(HumanTime).map_err(|error| error.to_string())
}

#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    /// The query, such as "SELECT count(*) FROM meter_readings".
    #[arg(allow_hyphen_values = true)]
    pub(crate) sql: String,
    #[command(flatten)]
    pub(crate) place: ArchivePlace,
    /// What to print.
    #[arg(long, value_enum, default_value_t = QueryFormat::Text)]
    pub(crate) format: QueryFormat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AlertsCommand {
    /// The alerts of the archive as they stand, the newest first.
    List(AlertsListArgs),
    /// What an alert says, how it came to be, by which rule and clause, and the events behind it.
    Explain(AlertsExplainArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AlertsListArgs {
    /// Only those of conditions that still hold.
    #[arg(long)]
    pub(crate) open: bool,
    /// Only those of this rule.
    #[arg(long, value_name = "RULE")]
    pub(crate) rule: Option<String>,
    /// Alerts that are shown.
    #[arg(long, default_value_t = 50, value_name = "ROWS")]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) place: ArchivePlace,
    /// What to print.
    #[arg(long, value_enum, default_value_t = QueryFormat::Text)]
    pub(crate) format: QueryFormat,
}

#[derive(Debug, Args)]
pub(crate) struct AlertsExplainArgs {
    /// `alert_id` of a record, or `fingerprint` of an alert: then its newest record.
    pub(crate) alert: String,
    #[command(flatten)]
    pub(crate) place: ArchivePlace,
    /// Events that are shown of each stream.
    #[arg(long, default_value_t = 20, value_name = "ROWS")]
    pub(crate) limit: usize,
    /// What to print.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) format: OutputFormat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReportsCommand {
    /// All reports, one a line.
    List(ReportsListArgs),
    /// The SQL of a report.
    Show(ReportsShowArgs),
    /// Run a report over the archive.
    Run(ReportsRunArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ReportsListArgs {
    /// What to print.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) format: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct ReportsShowArgs {
    /// Id of the report.
    pub(crate) report: String,
    /// As a script for DuckDB, with views over the files of the archive.
    #[arg(long)]
    pub(crate) duckdb: bool,
    #[command(flatten)]
    pub(crate) place: ArchivePlace,
}

#[derive(Debug, Args)]
pub(crate) struct ReportsRunArgs {
    /// Id of the report.
    pub(crate) report: String,
    #[command(flatten)]
    pub(crate) place: ArchivePlace,
    /// What to print.
    #[arg(long, value_enum, default_value_t = QueryFormat::Text)]
    pub(crate) format: QueryFormat,
}

/// Which rules: those of a job, or all that come with the program.
#[derive(Debug, Args)]
pub(crate) struct RulesOf {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    /// All shipped rules, without a configuration.
    #[arg(long)]
    pub(crate) builtin: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RulesCommand {
    /// All rules, one a line.
    List(RulesListArgs),
    /// The page of a rule: what it says and why, standard, inputs, parameters, state kept, an example, how to tune it.
    Show(RulesShowArgs),
    /// Which verdicts change between two rules, over the events of the archive.
    Diff(RulesDiffArgs),
    /// Write the pages of all rules into a folder, as Markdown.
    Pages(RulesPagesArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RulesListArgs {
    #[command(flatten)]
    pub(crate) of: RulesOf,
    /// What to print.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) format: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct RulesShowArgs {
    /// Id of the rule.
    pub(crate) rule: String,
    /// Its file instead of its page: to copy a shipped rule, `wattline rules show pq_load --builtin --sql > sql/pq_load.sql`.
    #[arg(long, conflicts_with = "cases")]
    pub(crate) sql: bool,
    /// The file of its cases.
    #[arg(long)]
    pub(crate) cases: bool,
    #[command(flatten)]
    pub(crate) of: RulesOf,
}

#[derive(Debug, Args)]
pub(crate) struct RulesPagesArgs {
    /// The folder; pages in it that are no rule's are left alone.
    pub(crate) folder: PathBuf,
    #[command(flatten)]
    pub(crate) of: RulesOf,
}

#[derive(Debug, Args)]
pub(crate) struct RulesDiffArgs {
    /// Id of a rule of the job, the path of a rule file, or a shipped rule as `builtin:power_quality/pq_voltage_windows`.
    pub(crate) old: String,
    /// The same; a file takes the place of the job's rule of that id.
    pub(crate) new: String,
    /// Compare the rows of this rule, which reads now the one and now the other.
    #[arg(long, value_name = "RULE")]
    pub(crate) of: Option<String>,
    #[command(flatten)]
    pub(crate) stretch: Stretch,
    #[command(flatten)]
    pub(crate) place: ArchivePlace,
    /// What to print.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) format: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Id of a rule of the job, or the path of a rule file, which takes the place of the job's rule of that id. With `--write` as many ids as there are to restate.
    #[arg(value_name = "RULE", required_unless_present = "dead_letters", conflicts_with = "dead_letters")]
    pub(crate) rules: Vec<String>,
    /// Print what changes against this rule instead of the rows.
    #[arg(long, value_name = "RULE", conflicts_with_all = ["write", "dead_letters"])]
    pub(crate) compare: Option<String>,
    /// The rows of this rule, which reads the other.
    #[arg(long, value_name = "RULE", conflicts_with_all = ["write", "dead_letters"])]
    pub(crate) of: Option<String>,
    /// Restate the period: compute the rows of the rules again from all events of the archive, late ones too, and put what differs into their tables, as a new revision.
    #[arg(long, requires_all = ["from", "to"], conflicts_with = "dead_letters")]
    pub(crate) write: bool,
    /// Decode dead letters again with the schemas, mappings and limits of now; what is accepted goes into the raw tables.
    #[arg(long)]
    pub(crate) dead_letters: bool,
    #[command(flatten)]
    pub(crate) amend: AmendArgs,
    #[command(flatten)]
    pub(crate) stretch: Stretch,
    #[command(flatten)]
    pub(crate) place: ArchivePlace,
    /// What to print.
    #[arg(long, value_enum, default_value_t = QueryFormat::Text)]
    pub(crate) format: QueryFormat,
}

/// How `replay --write` and `replay --dead-letters` change the archive.
#[derive(Debug, Args)]
pub(crate) struct AmendArgs {
    /// Say what would change, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// With `--write`: why, for the table `restatements`. With `--dead-letters`: only records refused with this reason.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Who asks for it, for the tables `restatements` and `redemptions` (default: the user of the session).
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
    /// With `--write`: where rows have to be withdrawn from a table without `_change` and `_revision`, add these columns.
    #[arg(long, requires = "write")]
    pub(crate) add_columns: bool,
    /// With `--dead-letters`: only of this stream.
    #[arg(long, requires = "dead_letters")]
    pub(crate) stream: Option<String>,
    /// With `--dead-letters`: only those refused from this instant or day (UTC) on.
    #[arg(long, value_name = "INSTANT", requires = "dead_letters")]
    pub(crate) since: Option<String>,
    #[cfg(debug_assertions)]
    #[command(flatten)]
    pub(crate) crash: crate::adapt::crash_points::CrashArgs,
}

/// A stretch of event time.
#[derive(Debug, Args)]
pub(crate) struct Stretch {
    /// From this instant or day (UTC) on.
    #[arg(long, value_name = "INSTANT")]
    pub(crate) from: Option<String>,
    /// Before this instant or day (UTC).
    #[arg(long, value_name = "INSTANT")]
    pub(crate) to: Option<String>,
    /// Differences that are shown as text.
    #[arg(long, default_value_t = 20, value_name = "ROWS")]
    pub(crate) limit: usize,
}

/// Where an archive is.
#[derive(Debug, Args)]
pub(crate) struct ArchivePlace {
    #[command(flatten)]
    pub(crate) config: ConfigArg,
    /// The archive's folder or URL, instead of the one in the configuration.
    #[arg(long, value_name = "URL")]
    pub(crate) archive: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveCommand {
    /// Tables with their rows, files, bytes and dates.
    List(ArchiveListArgs),
    /// The Parquet files of a table, one a line: what DuckDB's read_parquet and others take.
    Files(ArchiveFilesArgs),
    /// Prove that what the archive says of itself is true: chains, stored state, files, and that no event is there twice.
    Verify(ArchiveVerifyArgs),
    /// Delete what nothing has needed for a week, as a running job does from time to time: data files of tables, stored objects of jobs.
    Vacuum(ArchiveVacuumArgs),
    /// Copy tables, chains and state into another store, as they were at one moment; beside the running job, and only what is new.
    Backup(ArchiveBackupArgs),
    /// Bring a backup back into an empty archive, from which the job then goes on.
    Restore(ArchiveRestoreArgs),
}

/// The store of the backups, and the archive.
#[derive(Debug, Args)]
pub(crate) struct BackupPlace {
    /// An option of the store of the backups, named as in `[archive.options]`; it takes the place of that of `[backup.options]`.
    /// The value may hold `${env:NAME}` or `${file:/path}`.
    #[arg(long = "store-option", value_name = "NAME=VALUE", value_parser = store_option)]
    pub(crate) store_options: Vec<(String, Scalar)>,
    #[command(flatten)]
    pub(crate) place: ArchivePlace,
    /// What to print.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) format: OutputFormat,
}

fn store_option(text: &str) -> Result<(String, Scalar), String> {
    let (name, value) = text.split_once('=').ok_or("write it as `name=value`, such as `region=eu-central-1`")?;
    Ok((name.to_owned(), Scalar::of(value)))
}

#[derive(Debug, Args)]
pub(crate) struct ArchiveBackupArgs {
    /// The folder or URL of the backups, instead of `[backup] url` of the configuration.
    pub(crate) target: Option<String>,
    /// Show the backups that there are, and make none.
    #[arg(long, conflicts_with = "keep")]
    pub(crate) list: bool,
    /// Delete all backups but the newest so many, once this one is made, instead of `[backup] keep`.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) keep: Option<NonZeroU32>,
    #[command(flatten)]
    pub(crate) of: BackupPlace,
}

#[derive(Debug, Args)]
pub(crate) struct ArchiveRestoreArgs {
    /// The folder or URL of the backups, instead of `[backup] url` of the configuration.
    pub(crate) source: Option<String>,
    /// Number of the backup, instead of the newest.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) at: Option<u64>,
    #[command(flatten)]
    pub(crate) of: BackupPlace,
}

#[derive(Debug, Args)]
pub(crate) struct ArchiveListArgs {
    #[command(flatten)]
    pub(crate) place: ArchivePlace,
    /// What to print.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) format: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct ArchiveFilesArgs {
    /// Name of the table.
    pub(crate) table: String,
    #[command(flatten)]
    pub(crate) place: ArchivePlace,
    /// What to print.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) format: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct ArchiveVerifyArgs {
    #[command(flatten)]
    pub(crate) place: ArchivePlace,
    /// What to print.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) format: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct ArchiveVacuumArgs {
    /// Say what would be deleted, and delete nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) place: ArchivePlace,
    /// What to print.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) format: OutputFormat,
}
