//! What people read when something is wrong, and where the log goes.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;
use wattline_sql::{Diagnostic, Severity};

use crate::cli::LogFormat;
use crate::project::Texts;

/// Exit status: the answer is no.
pub(crate) fn answer_is_no() -> ExitCode {
    ExitCode::from(1)
}
/// Exit status: could not run.
pub(crate) fn could_not_run() -> ExitCode {
    ExitCode::from(2)
}

/// Sends log lines to stderr.
pub(crate) fn start_log(format: LogFormat) {
    let quiet =
        "info,rdkafka=warn,librdkafka=warn,delta_kernel=warn,buoyant_kernel=warn,deltalake_core=warn,datafusion=warn";
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new(quiet));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// Prints an error with its causes, without repeating what a cause already said.
pub(crate) fn failure(error: &anyhow::Error) {
    let mut said = error.to_string();
    let mut text = format!("error: {said}\n");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !said.contains(&cause) {
            text.push_str(&format!("  because: {cause}\n"));
            said = cause;
        }
    }
    print_error(&text);
}

/// Writes to stderr; a reader that is gone is no reason to fail.
pub(crate) fn print_error(text: &str) {
    std::io::stderr().lock().write_all(text.as_bytes()).unwrap_or_default();
}

/// Writes to stdout; a reader that is gone (`| head`) is no reason to fail.
pub(crate) fn print(text: &str) {
    std::io::stdout().lock().write_all(text.as_bytes()).unwrap_or_default();
}

/// Prints diagnostics for people.
pub(crate) fn diagnostics(diagnostics: &[Diagnostic], texts: &Texts) {
    let color = std::io::stderr().is_terminal();
    for diagnostic in diagnostics {
        let source = texts.get(&diagnostic.file).map_or("", String::as_str);
        print_error(&format!("{}\n", diagnostic.render(source, color)));
    }
}

/// Diagnostics for programs.
pub(crate) fn diagnostics_json(diagnostics: &[Diagnostic], texts: &Texts) -> serde_json::Value {
    let each = |diagnostic: &Diagnostic| {
        let source = texts.get(&diagnostic.file).map_or("", String::as_str);
        let place = diagnostic.line_column(source);
        serde_json::json!({
            "severity": match diagnostic.severity { Severity::Error => "error", Severity::Warning => "warning" },
            "code": diagnostic.code,
            "file": diagnostic.file,
            "line": place.map(|p| p.0),
            "column": place.map(|p| p.1),
            "message": diagnostic.message,
            "help": diagnostic.help,
        })
    };
    diagnostics.iter().map(each).collect()
}

/// `2 mistakes, 1 warning`.
pub(crate) fn count(diagnostics: &[Diagnostic]) -> String {
    let errors = diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
    let warnings = diagnostics.len() - errors;
    let word = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    match (errors, warnings) {
        (0, 0) => "no mistakes".to_owned(),
        (errors, 0) => word(errors, "mistake"),
        (0, warnings) => word(warnings, "warning"),
        (errors, warnings) => format!("{}, {}", word(errors, "mistake"), word(warnings, "warning")),
    }
}
