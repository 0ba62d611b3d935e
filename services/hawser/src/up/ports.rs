//! The listeners of all services: on ports from a base, on those of the last run, or on free ones.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use common::service::Listeners;
use tokio::net::TcpListener;

use super::Named;
use crate::instance::Instance;

/// In the order of their ports.
const GRPC: [&str; 5] = ["directory", "vault", "broker", "scheduler", "ingest"];
const HTTP: [&str; 4] = ["broker", "ingest", "console", "provider_sim"];

/// Bound listeners.
pub(super) struct Ports {
    grpc: BTreeMap<&'static str, (SocketAddr, Option<TcpListener>)>,
    http: BTreeMap<&'static str, (SocketAddr, Option<TcpListener>)>,
}

/// Binds every listener. Ports of the last run are kept where they are free, so that clients find everything again.
pub(super) async fn bind_all(base: Option<u16>, previous: Option<&Instance>) -> Result<Ports> {
    let mut ports = Ports {
        grpc: BTreeMap::new(),
        http: BTreeMap::new(),
    };
    let mut next = base;
    for name in GRPC {
        let before = previous
            .and_then(|instance| instance.grpc.get(name))
            .map(SocketAddr::port);
        let listener = bind(name, advance(&mut next)?, before).await?;
        ports
            .grpc
            .insert(name, (listener.local_addr()?, Some(listener)));
    }
    for name in HTTP {
        let before = previous
            .and_then(|instance| instance.http.get(name))
            .and_then(|url| url.parse::<url::Url>().ok()?.port());
        let listener = bind(name, advance(&mut next)?, before).await?;
        ports
            .http
            .insert(name, (listener.local_addr()?, Some(listener)));
    }
    Ok(ports)
}

fn advance(next: &mut Option<u16>) -> Result<Option<u16>> {
    let Some(port) = *next else { return Ok(None) };
    *next = Some(
        port.checked_add(1)
            .context("--port-base is too high: its ports would pass 65535")?,
    );
    Ok(Some(port))
}

async fn bind(name: &str, fixed: Option<u16>, before: Option<u16>) -> Result<TcpListener> {
    let on = |port| TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    if let Some(port) = fixed {
        return on(port).await.with_context(|| {
            format!("port {port} for {name} is taken; choose others with --port-base")
        });
    }
    if let Some(port) = before
        && let Ok(listener) = on(port).await
    {
        return Ok(listener);
    }
    on(0)
        .await
        .with_context(|| format!("no port is free on 127.0.0.1 for {name}"))
}

impl Ports {
    /// The listeners of a service.
    pub(super) fn of(&mut self, name: &str) -> Listeners {
        let take = |from: &mut BTreeMap<&'static str, (SocketAddr, Option<TcpListener>)>| {
            from.get_mut(name)?.1.take()
        };
        Listeners {
            grpc: take(&mut self.grpc),
            http: take(&mut self.http),
        }
    }

    /// An HTTP listener that is no service's.
    pub(super) fn take(&mut self, name: &str) -> TcpListener {
        let listener = self
            .http
            .get_mut(name)
            .and_then(|(_, listener)| listener.take());
        listener.expect("each listener is bound, and taken once")
    }

    pub(super) fn grpc_addresses(&self) -> Named<SocketAddr> {
        self.grpc
            .iter()
            .map(|(name, (address, _))| ((*name).to_owned(), *address))
            .collect()
    }

    pub(super) fn http_urls(&self) -> Named<String> {
        self.http
            .iter()
            .map(|(name, (address, _))| ((*name).to_owned(), format!("http://{address}")))
            .collect()
    }
}
