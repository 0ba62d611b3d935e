//! The tenant directory's process.

fn main() -> std::process::ExitCode {
    common::service::main::<tenant_directory::TenantDirectory>()
}
