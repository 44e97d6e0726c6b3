//! `wattline`: stream processing for power companies, as a program that can be given further functions.
//!
//! This crate reads the command line and wires the others. Its binary is [`Program`] without anything added; a program with functions of its own
//! is a few lines, and has the same commands:
//!
//! ```no_run
//! use wattline::datafusion::arrow::datatypes::DataType;
//! use wattline::datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
//!
//! fn main() -> std::process::ExitCode {
//!     let same = create_udf("same", vec![DataType::Int64], DataType::Int64, Volatility::Immutable, std::sync::Arc::new(
//!         |args: &[ColumnarValue]| Ok(args[0].clone()),
//!     ));
//!     wattline::Program::new().with_scalar(same).main()
//! }
//! ```

mod adapt;
mod allocator;
mod assets;
mod cli;
mod command;
mod config;
mod job;
mod open_files;
mod project;
mod reload;
mod report;
mod rule_paths;
mod status;
mod table_text;

use std::process::ExitCode;

use clap::Parser;
/// The version of DataFusion that functions are written for.
pub use datafusion;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};
use wattline_sql::UserFunctions;

/// The program with its commands.
#[derive(Debug, Clone, Default)]
pub struct Program {
    functions: UserFunctions,
}

impl Program {
    /// The program as it is shipped.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets rules and queries use a scalar function.
    #[must_use]
    pub fn with_scalar(mut self, function: impl Into<ScalarUDF>) -> Self {
        self.functions.add_scalar(function.into());
        self
    }

    /// Lets rules and queries use an aggregate function. Its state travels between threads and in checkpoints, so it must be
    /// mergeable, and mean the same in the next version of the program: else it gets another name.
    #[must_use]
    pub fn with_aggregate(mut self, function: impl Into<AggregateUDF>) -> Self {
        self.functions.add_aggregate(function.into());
        self
    }

    /// Lets rules and queries use a window function; in rules with a window in PARTITION BY.
    #[must_use]
    pub fn with_window(mut self, function: impl Into<WindowUDF>) -> Self {
        self.functions.add_window(function.into());
        self
    }

    /// Runs the command that the command line asks for.
    #[must_use]
    pub fn main(self) -> ExitCode {
        allocator::keep_freed_memory_for_a_while();
        open_files::allow_many();
        let cli = cli::Cli::parse();
        report::start_log(cli.log_format);
        match command::run(cli, &self.functions) {
            Ok(code) => code,
            Err(error) => {
                report::failure(&error);
                report::could_not_run()
            }
        }
    }
}
