//! Callers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use common::Deps;
use contracts::vault::v1::token_vault_service_client::TokenVaultServiceClient;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::credentials::Grant;
use crate::spans::Spans;

/// Walks over the grants in an order that nobody can foresee.
struct Walk {
    state: u64,
    grants: Arc<Vec<Grant>>,
}

impl Walk {
    fn new(grants: &Arc<Vec<Grant>>, deps: &Deps) -> Self {
        Self {
            // Never 0, from which xorshift does not move.
            state: u64::from_be_bytes(deps.random()) | 1,
            grants: Arc::clone(grants),
        }
    }

    fn next(&mut self) -> Grant {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.grants[(self.state % self.grants.len() as u64) as usize].clone()
    }
}

/// A number of callers, each with its next call as soon as it has its answer, for a time. Every answer is checked.
pub(crate) async fn closed_loop(
    channels: &[Channel],
    callers: usize,
    grants: &Arc<Vec<Grant>>,
    lasting: Duration,
    deps: &Deps,
) -> Result<Spans> {
    let began = Instant::now();
    let mut set = JoinSet::new();
    for channel in channels.iter().cycle().take(callers) {
        let mut vault = TokenVaultServiceClient::new(channel.clone());
        let mut walk = Walk::new(grants, deps);
        set.spawn(async move {
            let mut micros = Vec::new();
            while began.elapsed() < lasting {
                let grant = walk.next();
                let asked = Instant::now();
                grant.get(&mut vault).await?;
                micros.push(asked.elapsed().as_micros() as u32);
            }
            anyhow::Ok(micros)
        });
    }
    let mut micros = Vec::new();
    while let Some(caller) = set.join_next().await {
        micros.extend(caller??);
    }
    Ok(Spans::new(micros, began.elapsed()))
}

/// Calls at a rate of their own, whether answers come or not, until `until` says so. A call's time counts from when it was
/// due, so that nobody's slowness hides another's. Every answer is checked.
pub(crate) async fn open_loop(
    channels: &[Channel],
    rate: u32,
    grants: &Arc<Vec<Grant>>,
    mut until: watch::Receiver<bool>,
    deps: &Deps,
) -> Result<Spans> {
    const MOST_WAITING: usize = 20_000;
    let began = Instant::now();
    let mut walk = Walk::new(grants, deps);
    let mut channels = channels.iter().cycle();
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    let (mut calls, mut sent, mut micros) = (JoinSet::new(), 0_u64, Vec::new());
    let mut collect = |answered: Result<Result<u32>, tokio::task::JoinError>| {
        micros.push(answered??);
        anyhow::Ok(())
    };
    while !*until.borrow_and_update() {
        tick.tick().await;
        let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        while sent < due {
            let due_at = began + Duration::from_secs_f64(sent as f64 / f64::from(rate));
            let (grant, channel) = (walk.next(), channels.next().cloned());
            let channel = channel.expect("there is a connection at least");
            calls.spawn(async move {
                grant
                    .get(&mut TokenVaultServiceClient::new(channel))
                    .await?;
                Ok(due_at.elapsed().as_micros() as u32)
            });
            sent += 1;
        }
        while let Some(answered) = calls.try_join_next() {
            collect(answered)?;
        }
        ensure!(
            calls.len() < MOST_WAITING,
            "{rate} calls a second are more than it takes in: {} wait",
            calls.len()
        );
    }
    while let Some(answered) = calls.join_next().await {
        collect(answered)?;
    }
    Ok(Spans::new(micros, began.elapsed()))
}
