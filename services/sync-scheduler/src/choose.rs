//! What a request means: which account, which streams, and who asks for it.

use common::identity::Caller;
use common::{Problem, TenantKey};
use contracts::broker::v1::{Connection, Provider, StreamInfo};

use crate::app::Scheduler;
use crate::error::Error;
use crate::job::CONNECTORS;

/// Who asks: the person who calls, else whom the host application names, else the connection's user.
///
/// # Errors
/// NOT_FOUND where a user names another.
pub(crate) fn asking_user(
    caller: &Caller,
    connection: &Connection,
    named: &str,
) -> Result<String, Error> {
    if !named.is_empty() {
        caller.user(named)?;
    }
    let known = [caller.user_id(), named]
        .into_iter()
        .find(|user| !user.is_empty());
    Ok(known.unwrap_or(&connection.user_id).to_owned())
}

/// The account: the active one, or another one that the connection has. One that nobody has would have a lock of its own.
///
/// # Errors
/// INVALID_ARGUMENT where the connection has no such account; [`Error::NotUsable`] where one has to be selected first.
pub(crate) async fn account(
    scheduler: &Scheduler,
    tenant: TenantKey,
    connection: &Connection,
    provider: &Provider,
    asked: &str,
) -> Result<String, Error> {
    let active = connection
        .active_account
        .as_ref()
        .map_or("", |account| account.external_account_id.as_str());
    if asked.is_empty() && active.is_empty() && provider.multiple_accounts {
        let advice =
            "the connection reaches several accounts and none is selected; select one first"
                .to_owned();
        return Err(Error::NotUsable { advice });
    }
    if asked.is_empty() || asked == active {
        return Ok(active.to_owned());
    }
    let accounts = scheduler
        .clients
        .accounts(tenant, &connection.connection_id)
        .await?;
    let usable = |account: &contracts::broker::v1::Account| {
        account.external_account_id == asked && account.disconnected_at.is_none()
    };
    if accounts.iter().any(usable) {
        Ok(asked.to_owned())
    } else {
        Err(
            Problem::invalid_field("external_account_id", "is no account of this connection's")
                .into(),
        )
    }
}

/// The streams: those that were named, or all that there are. On a queue of the host application's own they have any name.
///
/// # Errors
/// [`Error::UnknownStreams`] with those that there are; [`Error::NotUsable`] where there are none.
pub(crate) fn streams(
    provider: &Provider,
    queue: &str,
    asked: &[String],
    fits: impl Fn(&StreamInfo) -> bool,
) -> Result<Vec<String>, Error> {
    let mut streams = asked.to_vec();
    if queue == CONNECTORS {
        let known = provider
            .streams
            .iter()
            .filter(|stream| fits(stream))
            .map(|stream| stream.stream.clone());
        let known: Vec<_> = known.collect();
        let unknown: Vec<_> = asked
            .iter()
            .filter(|stream| !known.contains(stream))
            .cloned()
            .collect();
        if !unknown.is_empty() {
            return Err(Error::UnknownStreams { unknown, known });
        }
        if streams.is_empty() {
            streams = known;
        }
    }
    streams.sort();
    streams.dedup();
    if streams.is_empty() {
        let provider = &provider.provider;
        let advice = format!(
            "nothing of `{provider}` can be synced by a connector; name `streams` and a `queue` of your own"
        );
        return Err(Error::NotUsable { advice });
    }
    Ok(streams)
}

/// The queue that a request means.
pub(crate) fn queue(asked: &str) -> String {
    if asked.is_empty() {
        CONNECTORS.to_owned()
    } else {
        asked.to_owned()
    }
}
