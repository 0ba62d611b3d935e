//! The webhook ingest's process.

fn main() -> std::process::ExitCode {
    common::service::main::<webhook_ingest::WebhookIngest>()
}
