//! `GetCredential` with its durable records, beside an echo: in turns, so that both see the same machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tonic::transport::Channel;

use super::Options;
use crate::credentials::{self, Grant};
use crate::drive::closed_loop;
use crate::report::{self, Thousands, demand};
use crate::spans::{Summary, median};
use crate::usage::{Cpu, memory};
use crate::world::{BROKER, Running, World};

const GRANTS: usize = 100_000;
const RATE_DEMAND: f64 = 0.3;
const P99_DEMAND: f64 = 5.0;

/// Who is called in a turn.
struct Side {
    running: Running,
    channels: Vec<Channel>,
    /// Whose processor time counts besides its own.
    postmaster: Option<i32>,
}

/// What a turn came to.
#[derive(Clone, Copy)]
struct Turn {
    summary: Summary,
    cpu: Cpu,
}

/// What the database did in the vault's turns.
#[derive(Default)]
struct Work {
    statements: i64,
    control: i64,
    transactions: i64,
    flushes: i64,
    /// Calls, and milliseconds of execution, by the statement's name.
    named: BTreeMap<String, (i64, f64)>,
}

pub(super) async fn run(options: &Options) -> Result<()> {
    let world = World::new(options).await?;
    let vault = world.vault(&["a"]).await?;
    let channels = world
        .connect(vault.address, BROKER, options.connections)
        .await?;
    let grants = credentials::grants(
        options.grants.unwrap_or(GRANTS),
        options.tenants,
        &world.deps,
    );
    seed(&world, &grants, &channels).await?;
    let grants = Arc::new(grants);
    let vault = Side {
        running: vault,
        channels,
        postmaster: Some(world.postgres.pid()),
    };
    let echo = world.echo().await?;
    let channels = world
        .connect(echo.address, BROKER, options.connections)
        .await?;
    let echo = Side {
        running: echo,
        channels,
        postmaster: None,
    };

    let warm_up = options.turn.min(Duration::from_secs(5));
    let mut answers = 0;
    answers += turn(&world, &vault, options, &grants, warm_up)
        .await?
        .summary
        .calls;
    turn(&world, &echo, options, &grants, warm_up).await?;
    let (mut vaults, mut echoes, mut work) = (Vec::new(), Vec::new(), Work::default());
    for round in 1..=options.rounds {
        let floor = turn(&world, &echo, options, &grants, options.turn).await?;
        world
            .postgres
            .admin
            .execute("SELECT pg_stat_statements_reset()", &[])
            .await?;
        let before = transactions(&world).await?;
        let load = turn(&world, &vault, options, &grants, options.turn).await?;
        work.add(&world, before).await?;
        answers += load.summary.calls;
        report::progress(format_args!(
            "round {round}: echo {:.0}/s p99 {:.2} ms; vault {:.0}/s p99 {:.2} ms",
            floor.summary.rate, floor.summary.p99, load.summary.rate, load.summary.p99
        ));
        echoes.push(floor);
        vaults.push(load);
    }
    say_setting(options, &grants);
    say_turns(&echoes, &vaults);
    say_cpu("echo", &echoes);
    say_cpu("vault", &vaults);
    say_work(&work, &vaults, vault.running.process.pid())?;
    records_match(&world, answers).await?;
    vault.running.process.stop().await
}

async fn seed(world: &World, grants: &[Grant], channels: &[Channel]) -> Result<()> {
    let began = Instant::now();
    credentials::put_all(grants, None, channels).await?;
    // As a broker would have done; the seal does not depend on it.
    world
        .postgres
        .admin
        .execute("UPDATE vault.grants SET state = 'active', confirm_until = NULL, next_refresh_at = NULL", &[])
        .await?;
    world.postgres.settle().await?;
    report::progress(format_args!(
        "{} grants sealed and settled in {:.0} s",
        Thousands(grants.len() as u64),
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}

async fn turn(
    world: &World,
    side: &Side,
    options: &Options,
    grants: &Arc<Vec<Grant>>,
    lasting: Duration,
) -> Result<Turn> {
    let pid = side.running.process.pid();
    let before = Cpu::now(pid, side.postmaster)?;
    let spans = closed_loop(
        &side.channels,
        options.callers,
        grants,
        lasting,
        &world.deps,
    )
    .await?;
    let cpu = Cpu::now(pid, side.postmaster)?.since(before);
    Ok(Turn {
        summary: spans.summary(),
        cpu,
    })
}

/// Every answer was recorded, and nothing else was.
async fn records_match(world: &World, answers: usize) -> Result<()> {
    let records = world
        .postgres
        .number("SELECT count(*) FROM vault.access_records WHERE action = 'GetCredential'")
        .await?;
    let linked = world
        .postgres
        .number("SELECT count(mac) FROM vault.access_records WHERE action = 'GetCredential'")
        .await?;
    ensure!(
        records == answers as i64 && linked == records,
        "{answers} answers, {records} records, {linked} of them linked"
    );
    demand(
        "access records",
        Thousands(records as u64),
        format_args!("{}, one for each answer", Thousands(answers as u64)),
        true,
    );
    Ok(())
}

async fn transactions(world: &World) -> Result<i64> {
    world
        .postgres
        .number("SELECT sum(xact_commit + xact_rollback)::bigint FROM pg_stat_database")
        .await
}

impl Work {
    async fn add(&mut self, world: &World, before: i64) -> Result<()> {
        let postgres = &world.postgres;
        let of_the_vault = "FROM pg_stat_statements JOIN pg_roles ON pg_roles.oid = userid WHERE rolname LIKE 'hawser_vault%'";
        let count = |what: &str| {
            format!("SELECT coalesce(sum(calls) FILTER (WHERE {what}), 0)::bigint {of_the_vault}")
        };
        let control = "query ~* '^ *(begin|set|commit|rollback)'";
        self.control += postgres.number(&count(control)).await?;
        self.statements += postgres.number(&count(&format!("NOT {control}"))).await?;
        self.flushes += postgres
            .number(&count("query LIKE '%INSERT INTO vault.access_records%'"))
            .await?;
        let named = format!(
            "SELECT coalesce(substring(query FROM '-- ([a-z_.]+)'), 'BEGIN, SET LOCAL, COMMIT'), sum(calls)::bigint, sum(total_exec_time) {of_the_vault} GROUP BY 1"
        );
        for row in postgres.admin.query(&named, &[]).await? {
            let (calls, took) = self.named.entry(row.get(0)).or_default();
            *calls += row.get::<_, i64>(1);
            *took += row.get::<_, f64>(2);
        }
        // Told with a delay of up to a second, and the question is one too: good enough for what runs for seconds.
        self.transactions += transactions(world).await? - before;
        Ok(())
    }
}

fn say_setting(options: &Options, grants: &[Grant]) {
    let tenants = options.tenants.min(grants.len());
    report::line(format_args!(
        "GetCredential, {} grants of {} tenants, {} callers over {} connections; {} rounds of {} s for echo and vault each",
        Thousands(grants.len() as u64),
        Thousands(tenants as u64),
        options.callers,
        options.connections,
        options.rounds,
        options.turn.as_secs()
    ));
    if !options.settings.is_empty() {
        report::line(format_args!("with {}", options.settings.join(" ")));
    }
}

fn say_turns(echoes: &[Turn], vaults: &[Turn]) {
    for (name, turns) in [("echo", echoes), ("vault", vaults)] {
        let of =
            |figure: fn(&Summary) -> f64| median(turns.iter().map(|turn| figure(&turn.summary)));
        report::line(format_args!(
            "{name:<6} {:>7.0} a second, p50 {:>6.2} ms, p99 {:>6.2} ms, worst {:>7.2} ms",
            of(|s| s.rate),
            of(|s| s.p50),
            of(|s| s.p99),
            of(|s| s.worst)
        ));
    }
    let ratios = |figure: fn(&Summary) -> f64| -> Vec<f64> {
        let pairs = vaults.iter().zip(echoes);
        pairs
            .map(|(vault, echo)| figure(&vault.summary) / figure(&echo.summary))
            .collect()
    };
    let (rates, tails) = (ratios(|s| s.rate), ratios(|s| s.p99));
    let (rate, tail) = (median(rates.clone()), median(tails.clone()));
    demand(
        "rate, of the echo's",
        format_args!("{rate:.3}, rounds {}", list(&rates)),
        format_args!("at least {RATE_DEMAND}"),
        rate >= RATE_DEMAND,
    );
    demand(
        "p99, times the echo's",
        format_args!("{tail:.2}, rounds {}", list(&tails)),
        format_args!("at most {P99_DEMAND}"),
        tail <= P99_DEMAND,
    );
}

/// Microseconds of processor time a call.
fn say_cpu(name: &str, turns: &[Turn]) {
    let cpu = turns
        .iter()
        .fold(Cpu::default(), |sum, turn| sum.plus(turn.cpu));
    let calls: usize = turns.iter().map(|turn| turn.summary.calls).sum();
    let each = |time: Duration| time.as_secs_f64() * 1e6 / calls as f64;
    report::line(format_args!(
        "processor time a call, {name:<6} client {:.0} µs, server {:.0} µs, Postgres {:.0} µs; others' {:.0} % of the machine's",
        each(cpu.client),
        each(cpu.server),
        each(cpu.postgres),
        100.0 * cpu.others().as_secs_f64() / cpu.machine.as_secs_f64()
    ));
}

fn say_work(work: &Work, vaults: &[Turn], pid: i32) -> Result<()> {
    let calls: usize = vaults.iter().map(|turn| turn.summary.calls).sum();
    let per_thousand = |count: i64| count as f64 * 1000.0 / calls as f64;
    report::line(format_args!(
        "for 1 000 calls: {:.1} statements in {:.1} transactions (and {:.1} of BEGIN, SET LOCAL and COMMIT); {:.1} calls a flush",
        per_thousand(work.statements),
        per_thousand(work.transactions),
        per_thousand(work.control),
        calls as f64 / work.flushes.max(1) as f64
    ));
    let mut named: Vec<_> = work.named.iter().collect();
    named.sort_by(|(_, (_, one)), (_, (_, other))| other.total_cmp(one));
    for (name, (count, took)) in named.into_iter().take(4) {
        report::line(format_args!(
            "  {name:<28} {:>6.1} for 1 000 calls, {:>5.0} µs each",
            per_thousand(*count),
            took * 1000.0 / (*count).max(1) as f64
        ));
    }
    let (now, most) = memory(pid)?;
    report::line(format_args!(
        "the vault's memory: {now:.0} MiB resident, {most:.0} MiB at most"
    ));
    Ok(())
}

fn list(values: &[f64]) -> String {
    let values: Vec<_> = values.iter().map(|value| format!("{value:.2}")).collect();
    values.join(" ")
}
