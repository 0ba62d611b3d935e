//! The sync worker's process.

fn main() -> std::process::ExitCode {
    common::service::main::<sync_worker::SyncWorker>()
}
