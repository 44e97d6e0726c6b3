//! `wattline`: stream processing for power companies. This binary reads the command line and wires the crates.

mod adapt;
mod allocator;
mod assets;
mod cli;
mod command;
mod config;
mod job;
mod project;
mod report;
mod status;
mod table_text;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    allocator::keep_freed_memory_for_a_while();
    let cli = cli::Cli::parse();
    report::start_log(cli.log_format);
    match command::run(cli) {
        Ok(code) => code,
        Err(error) => {
            report::failure(&error);
            report::could_not_run()
        }
    }
}
