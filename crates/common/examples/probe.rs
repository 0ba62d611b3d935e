//! A process that the lifecycle's tests start, signal, and watch: `probe ROLE [COLLECTOR]`.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::process::ExitCode;

use common::lifecycle::{self, Process, Settings};
use common::telemetry::{LogFormat, TelemetryConfig};

type Nothing = Result<(), Infallible>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let role = arguments.next().unwrap_or_default();
    let mut settings = Settings {
        telemetry: TelemetryConfig {
            log_format: LogFormat::Json,
            ..TelemetryConfig::default()
        },
        ..Settings::default()
    };
    settings.telemetry.otlp.endpoint = arguments.next().filter(|to| !to.is_empty());
    lifecycle::run(
        "probe",
        &settings,
        async |process: Process| -> io::Result<()> {
            tracing::info_span!("started").in_scope(|| {});
            play(&role, &process).await
        },
    )
}

async fn play(role: &str, process: &Process) -> io::Result<()> {
    let shutdown = process.shutdown.clone();
    match role {
        "drains" => process.tasks.spawn("server", async move {
            shutdown.requested().await;
            tracing::info_span!("finished")
                .in_scope(|| tracing::info!(event = "finished", "finished"));
            Nothing::Ok(())
        }),
        "flushes" => {
            let lost = process.telemetry.meter("probe").u64_counter("lost").build();
            lost.add(1, &[]);
            for _ in 0..3 {
                tracing::info_span!("lost").in_scope(|| tracing::info!("lost"));
                process.telemetry.flush().await.expect_err("nobody listens");
            }
            process.tasks.spawn("server", async move {
                shutdown.requested().await;
                Nothing::Ok(())
            });
        }
        "hangs" => process.tasks.spawn("server", pending::<Nothing>()),
        "dies" => process
            .tasks
            .spawn("server", async { panic!("broken invariant") as Nothing }),
        _ => return Err(io::Error::other("the port is taken")),
    }
    Ok(())
}
