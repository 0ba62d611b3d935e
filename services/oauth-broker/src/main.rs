//! The OAuth broker's process.

fn main() -> std::process::ExitCode {
    common::service::main::<oauth_broker::OauthBroker>()
}
