//! The program as it is shipped.

fn main() -> std::process::ExitCode {
    wattline::Program::new().main()
}
