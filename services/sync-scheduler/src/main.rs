//! The sync scheduler's process.

fn main() -> std::process::ExitCode {
    common::service::main::<sync_scheduler::SyncScheduler>()
}
