//! How a process ends: in this process with signals of our own, and as a process of its own with real ones.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use common::admin::Phase;
use common::config;
use common::lifecycle::{self, Exit, LifecycleConfig, Process, Signal};
use futures::channel::mpsc;
use nix::sys::signal::{Signal as Unix, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::oneshot;

use crate::telemetry::Captured;
use crate::telemetry::sink::Sink;

type Nothing = Result<(), Infallible>;

struct Driven {
    captured: Captured,
    process: Process,
    signals: mpsc::UnboundedSender<Signal>,
    receiver: Option<mpsc::UnboundedReceiver<Signal>>,
}

impl Driven {
    fn new() -> Self {
        let captured = Captured::new();
        let process = Process::new(captured.telemetry.clone());
        let (signals, receiver) = mpsc::unbounded();
        Self {
            captured,
            process,
            signals,
            receiver: Some(receiver),
        }
    }

    async fn drive<E: Into<lifecycle::BoxError>>(
        &mut self,
        start: impl AsyncFnOnce(Process) -> Result<(), E>,
    ) -> Exit {
        let config = LifecycleConfig {
            pre_drain_delay: Some(config::Duration::from_secs(0)),
            ..LifecycleConfig::default()
        };
        let signals = self.receiver.take().expect("driven once");
        lifecycle::drive("probe", &self.process, &config, signals, start).await
    }
}

#[tokio::test]
async fn a_signal_drains_and_what_others_lean_on_ends_last() {
    let mut driven = Driven::new();
    let (ended, mut order) = tokio::sync::mpsc::unbounded_channel();
    let (finish, finished) = oneshot::channel::<()>();
    let signals = driven.signals.clone();
    let exit = driven
        .drive(async move |process: Process| -> Nothing {
            let (shutdown, readiness, done) = (
                process.shutdown.clone(),
                process.readiness.clone(),
                ended.clone(),
            );
            process.tasks.spawn("server", async move {
                shutdown.requested().await;
                assert_eq!(
                    readiness.phase(),
                    Phase::Draining,
                    "not ready before anything ends"
                );
                finish.send(()).expect("the request waits");
                done.send("server").expect("kept");
                Nothing::Ok(())
            });
            let done = ended.clone();
            process.tasks.spawn_work("request", async move {
                finished.await.expect("the server sends");
                done.send("request").expect("kept");
            });
            let shutdown = process.shutdown.clone();
            process.tasks.spawn_until_drained("writer", async move {
                shutdown.drained().await;
                ended.send("writer").expect("kept");
                Nothing::Ok(())
            });
            signals
                .unbounded_send(Signal::Terminate)
                .expect("somebody listens");
            Ok(())
        })
        .await;
    assert_eq!(exit, Exit::Clean);
    let mut names = Vec::new();
    while let Some(name) = order.recv().await {
        names.push(name);
    }
    assert_eq!(names.last(), Some(&"writer"), "{names:?}");
    assert_eq!(names.len(), 3);
    assert_eq!(driven.captured.events("process_stopped")[0]["clean"], true);
    assert!(driven.captured.events("task_died").is_empty());
}

#[tokio::test]
async fn a_task_that_dies_takes_the_process_down_loudly() {
    for (how, cause) in [
        ("fails", "lost the lease"),
        ("panics", "it panicked: broken invariant"),
        ("ends", "it ended although nobody asked it to"),
    ] {
        let mut driven = Driven::new();
        let exit = driven
            .drive(async |process: Process| -> Nothing {
                let process = process.scoped("vault");
                match how {
                    "fails" => {
                        let lost = async { Err(io::Error::other("lost the lease")) };
                        process.tasks.spawn("outbox", lost);
                    }
                    "panics" => {
                        let panics = async { panic!("broken invariant") as Nothing };
                        process.tasks.spawn("outbox", panics);
                    }
                    _ => {
                        let ends = async { Nothing::Ok(()) };
                        process.tasks.spawn_until_drained("outbox", ends);
                    }
                }
                Ok(())
            })
            .await;
        assert_eq!(exit, Exit::Failed, "{how}");
        assert_eq!(ExitCode::from(exit), ExitCode::FAILURE);
        let died = driven.captured.events("task_died");
        assert_eq!(died.len(), 1, "{how}: {died:?}");
        assert_eq!(died[0]["level"], "ERROR");
        assert_eq!(died[0]["task"], "vault.outbox");
        assert_eq!(died[0]["cause"], cause);
    }
}

#[tokio::test]
async fn work_that_panics_does_not_end_the_process() {
    let mut driven = Driven::new();
    let signals = driven.signals.clone();
    let exit = driven
        .drive(async move |process: Process| -> Nothing {
            process
                .tasks
                .spawn_work("request", async { panic!("one request only") });
            signals
                .unbounded_send(Signal::Interrupt)
                .expect("somebody listens");
            Ok(())
        })
        .await;
    assert_eq!(exit, Exit::Clean);
    assert_eq!(driven.captured.events("work_died")[0]["task"], "request");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut driven = Driven::new();
    let signals = driven.signals.clone();
    let exit = driven
        .drive(async move |process: Process| -> Nothing {
            process.tasks.spawn("stubborn", pending::<Nothing>());
            signals
                .unbounded_send(Signal::Terminate)
                .expect("somebody listens");
            signals
                .unbounded_send(Signal::Interrupt)
                .expect("somebody listens");
            Ok(())
        })
        .await;
    assert_eq!(exit, Exit::Forced(Signal::Interrupt));
    assert_eq!(Signal::Interrupt.exit_code(), 130);
    assert_eq!(Signal::Terminate.exit_code(), 143);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_finish_in_time_is_named() {
    let mut driven = Driven::new();
    let signals = driven.signals.clone();
    let exit = driven
        .drive(async move |process: Process| -> Nothing {
            let shutdown = process.shutdown.clone();
            process.tasks.spawn_until_drained("writer", async move {
                shutdown.drained().await;
                Nothing::Ok(())
            });
            process.tasks.spawn("grpc", pending::<Nothing>());
            process.tasks.spawn_work("refresh", pending());
            signals
                .unbounded_send(Signal::Terminate)
                .expect("somebody listens");
            Ok(())
        })
        .await;
    assert_eq!(exit, Exit::Failed);
    assert_eq!(
        driven.captured.events("drain_timed_out")[0]["tasks"],
        "grpc, refresh",
        "and not the writer, which only waits for them"
    );
}

#[tokio::test]
async fn a_service_that_cannot_start_says_why_and_fails() {
    let mut driven = Driven::new();
    let exit = driven
        .drive(async |_| Err(io::Error::other("the port is taken")))
        .await;
    assert_eq!(exit, Exit::Failed);
    let said = &driven.captured.events("process_not_started")[0];
    assert_eq!(said["level"], "ERROR");
    assert_eq!(said["message"], "probe cannot start: the port is taken");
}

#[tokio::test]
async fn a_signal_while_starting_ends_the_start() {
    let mut driven = Driven::new();
    driven
        .signals
        .unbounded_send(Signal::Terminate)
        .expect("somebody listens");
    let exit = driven.drive(async |_| pending::<Nothing>().await).await;
    assert_eq!(exit, Exit::Clean);
}

/// The example `probe`, as a process that [`lifecycle::run`] leads.
struct Probe {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl Probe {
    fn start(role: &str, collector: &str) -> Self {
        let test = std::env::current_exe().expect("this binary");
        let built = test.ancestors().nth(2).expect("it lies in deps");
        let mut child = Command::new(built.join("examples/probe"))
            .args([role, collector])
            .env_remove("KUBERNETES_SERVICE_HOST")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("starts");
        let log = BufReader::new(child.stderr.take().expect("piped")).lines();
        Self { child, log }
    }

    /// Reads the log until the line with this `event`.
    async fn until(&mut self, event: &str) -> Value {
        let mut before = Vec::new();
        while let Some(line) = self.log.next_line().await.expect("reads its log") {
            match serde_json::from_str::<Value>(&line) {
                Ok(line) if line["event"] == event => return line,
                _ => before.push(line),
            }
        }
        panic!("no {event} in its log:\n{}", before.join("\n"));
    }

    fn signal(&self, signal: Unix) {
        let id = self.child.id().expect("still running");
        kill(Pid::from_raw(id.try_into().expect("a process id")), signal).expect("delivered");
    }

    async fn code(mut self) -> Option<i32> {
        let ended = tokio::time::timeout(Duration::from_secs(20), self.child.wait());
        ended
            .await
            .expect("ends")
            .expect("can be waited for")
            .code()
    }
}

#[tokio::test]
async fn sigterm_drains_sends_telemetry_and_exits_with_0() {
    let sink = Sink::start().await;
    let mut probe = Probe::start("drains", &sink.endpoint());
    let starting = probe.until("process_starting").await;
    assert!(
        starting["admin"]
            .as_str()
            .is_some_and(|admin| admin.starts_with("127.0.0.1:")),
        "{starting}"
    );
    probe.until("process_started").await;
    probe.signal(Unix::SIGTERM);
    assert_eq!(probe.until("process_stopping").await["signal"], "SIGTERM");
    probe.until("finished").await;
    assert_eq!(probe.until("process_stopped").await["clean"], true);
    assert_eq!(probe.code().await, Some(0));
    let received = sink.received();
    received.span("started");
    received.span("finished");
    received.log("finished");
}

#[tokio::test]
async fn a_second_sigterm_exits_at_once_with_143() {
    let mut probe = Probe::start("hangs", "");
    probe.until("process_started").await;
    probe.signal(Unix::SIGTERM);
    probe.until("process_stopping").await;
    probe.signal(Unix::SIGTERM);
    assert_eq!(probe.code().await, Some(143));
}

#[tokio::test]
async fn a_dying_task_ends_the_process_with_1_and_its_panic_in_the_log() {
    let sink = Sink::start().await;
    let mut probe = Probe::start("dies", &sink.endpoint());
    let panic = probe.until("panic").await;
    assert_eq!(panic["level"], "ERROR");
    assert_eq!(panic["message"], "panicked: broken invariant");
    assert!(
        panic["location"]
            .as_str()
            .is_some_and(|at| at.contains("probe.rs:")),
        "{panic}"
    );
    assert_eq!(probe.until("task_died").await["task"], "server");
    assert_eq!(probe.code().await, Some(1));
    sink.received().log("panicked: broken invariant");
}

#[tokio::test]
async fn a_collector_that_is_away_is_told_once_for_each_signal() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("its address");
    drop(listener);
    let mut probe = Probe::start("flushes", &format!("http://{address}"));
    let mut told = Vec::new();
    while let Some(line) = probe.log.next_line().await.expect("reads its log") {
        let line: Value = serde_json::from_str(&line).expect("nothing but the log");
        match line["event"].as_str() {
            Some("process_started") => probe.signal(Unix::SIGTERM),
            Some("telemetry_export_failed") => {
                assert_eq!(line["level"], "WARN");
                told.push(line["signal"].as_str().expect("a signal").to_owned());
            }
            _ => {}
        }
    }
    told.sort();
    assert_eq!(told, ["logs", "metrics", "traces"]);
    assert_eq!(probe.code().await, Some(0));
}

#[tokio::test]
async fn a_process_that_cannot_start_exits_with_1_and_one_sentence() {
    let mut probe = Probe::start("cannot start", "");
    let said = probe.until("process_not_started").await;
    assert_eq!(said["message"], "probe cannot start: the port is taken");
    assert_eq!(probe.code().await, Some(1));
}
