//! Following the vault's events.

use std::convert::Infallible;

use common::lifecycle::Shutdown;
use common::pg::consumer::{Consumer, FeedError, Received, Start};
use common::rpc::CallError;
use contracts::vault::v1::{GrantEventKind, WatchGrantEventsResponse};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::broker::SharedBroker;
use crate::clients::Vault;
use crate::follow_grant::CONSUMER;

type Item = Result<Received<WatchGrantEventsResponse>, FeedError>;

/// Moves connections as their grants move, until shutdown.
pub(crate) async fn follow_grants(
    broker: SharedBroker,
    shutdown: Shutdown,
) -> Result<(), Infallible> {
    let consumer = Consumer::new(&broker.db, CONSUMER);
    let vault = broker.vault.clone();
    let open = move |start| open(vault.clone(), start);
    let apply = move |event| {
        let broker = broker.clone();
        async move { broker.follow_grant(event).await }
    };
    consumer.run(shutdown, open, apply).await
}

async fn open(vault: Vault, start: Start) -> Result<BoxStream<'static, Item>, FeedError> {
    match start {
        Start::After(cursor) => Ok(events(vault.watch(cursor, false).await?).boxed()),
        Start::Beginning => Ok(events(vault.watch(String::new(), false).await?).boxed()),
        Start::Resync => resync(vault).await,
    }
}

fn events(
    stream: common::rpc::Streaming<WatchGrantEventsResponse>,
) -> impl futures::Stream<Item = Item> + Send + use<> {
    stream.map(|item| match item {
        Ok(event) => Ok(Received {
            cursor: Some(event.cursor.clone()),
            message: event,
        }),
        Err(status) => Err(CallError::from(status).into()),
    })
}

/// From the head, after every grant as it is now.
async fn resync(vault: Vault) -> Result<BoxStream<'static, Item>, FeedError> {
    let mut stream = vault.watch(String::new(), true).await?;
    let first = stream.try_next().await.map_err(CallError::from)?;
    let bookmark =
        first.ok_or_else(|| FeedError::failed("the stream ended before its bookmark"))?;
    let listed = futures::stream::try_unfold(Some(String::new()), move |page| {
        let vault = vault.clone();
        async move {
            let Some(page) = page else { return Ok(None) };
            let answer = vault.list_grants(page).await?;
            let next = (!answer.next_page_token.is_empty()).then_some(answer.next_page_token);
            let of = |grant| WatchGrantEventsResponse {
                grant: Some(grant),
                kind: GrantEventKind::Unspecified.into(),
                ..Default::default()
            };
            let items = answer.grants.into_iter().map(move |grant| {
                Ok(Received {
                    cursor: None,
                    message: of(grant),
                })
            });
            Ok::<_, FeedError>(Some((futures::stream::iter(items), next)))
        }
    });
    let reached = Received {
        cursor: Some(bookmark.cursor.clone()),
        message: bookmark,
    };
    Ok(listed
        .try_flatten()
        .chain(futures::stream::once(async { Ok(reached) }))
        .chain(events(stream))
        .boxed())
}
