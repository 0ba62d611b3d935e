//! `hawser`: every service in one process, and the tools around them.

fn main() -> std::process::ExitCode {
    hawser::cli::run()
}
