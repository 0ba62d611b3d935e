//! One attempt under the lease: everything in hand, the request, and what becomes of its outcome.

use std::time::Duration;

use common::Secret;
use common::problem::Chain;
use oauth_client::{Class, Failure as TokenFailure, NamedToken, TokenSet};
use time::OffsetDateTime;

use super::new_tokens::origin;
use super::{Pass, RefreshError, Seals, seal_tokens};
use crate::failpoint;
use crate::grant::{Grant, GrantKey, Settled};
use crate::keys::SealingKey;
use crate::oauth_client::OAuthClient;
use crate::providers::{Resolved, at_database_time};
use crate::secrets::{self, Credential, RefreshToken};
use crate::spool::Slot;
use crate::store::Change;
use crate::vault::Vault;

/// On what terms the provider is asked.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) client: &'a OAuthClient,
    pub(super) resolved: &'a Resolved,
    pub(super) pass: &'a Pass,
    /// When the lease ends, by a clock that runs through suspension.
    pub(super) lease_ends: Duration,
}

/// Everything that the answer will need.
pub(super) struct InHand<'a> {
    pub(super) grant: Grant,
    pub(super) client: &'a OAuthClient,
    pub(super) resolved: &'a Resolved,
    pass: &'a Pass,
    data_key: SealingKey,
    /// Tokens beside the main one, which an answer need not repeat.
    others: Vec<NamedToken>,
    /// When the lease ends, by a clock that runs through suspension.
    pub(super) lease_ends: Duration,
    began_at: Duration,
}

/// What a request brought.
enum Brought {
    Tokens(TokenSet, OffsetDateTime),
    /// And the time that its waits count from.
    Failure(TokenFailure, OffsetDateTime),
    /// The lease has run out, or is somebody else's; nothing was sent.
    LeaseLost,
}

/// What is traded for new tokens.
struct Candidate {
    /// `None`: the client's own credentials, and nothing is kept about them.
    token: Option<Secret<String>>,
}

impl Vault {
    /// `true` where there are newer tokens now, `false` where the lease was lost.
    pub(super) async fn attempt(
        &self,
        grant: Grant,
        terms: Terms<'_>,
    ) -> Result<bool, RefreshError> {
        let (key, fence, lease_ends) = (grant.key, grant.fence, terms.lease_ends);
        let (mut in_hand, candidates, slot) = match self.take_in_hand(grant, terms).await {
            Ok(all) => all,
            Err(error) => return self.give_back(key, fence, lease_ends, error).await,
        };
        let mut refused = None;
        for candidate in candidates {
            let brought = match self.send(&mut in_hand, &candidate).await {
                Ok(brought) => brought,
                Err(error) => {
                    return self.give_back(key, fence, in_hand.lease_ends, error).await;
                }
            };
            match brought {
                Brought::LeaseLost => {
                    self.let_go(key, fence).await?;
                    return Ok(false);
                }
                Brought::Tokens(tokens, sent_at) => {
                    failpoint::reach("answered", key.id);
                    in_hand.pass.answered();
                    return self
                        .take_answer(&in_hand, slot, &candidate, &tokens, sent_at)
                        .await
                        .map(|()| true);
                }
                Brought::Failure(failure, asked_at) => {
                    self.look_at(&in_hand, &failure, asked_at);
                    match failure.class {
                        // Another token of the same grant may be the one that the provider wants.
                        Class::Reauthorization(cause) => {
                            refused = refused.or(Some((cause, failure)));
                        }
                        _ => return self.take_failure(&in_hand, &failure, asked_at).await,
                    }
                }
            }
        }
        drop(slot);
        match refused {
            Some((cause, failure)) => self.take_refusal(&in_hand, cause, &failure).await,
            None => Ok(false),
        }
    }

    /// What a failure says besides what it says of the grant.
    fn look_at(&self, in_hand: &InHand<'_>, failure: &TokenFailure, asked_at: OffsetDateTime) {
        in_hand.pass.failed(failure, asked_at);
        self.refresh_metrics.refreshed(
            &in_hand.client.settings.provider,
            self.deps.clock.boottime().saturating_sub(in_hand.began_at),
            Some(failure.class.as_str()),
        );
    }

    /// Nothing is under way any more: what was asked before was answered.
    async fn let_go(&self, key: GrantKey, fence: i64) -> Result<(), RefreshError> {
        let change = self.store.grant_change("lease_return", key, move |grant| {
            let save = grant.give_up_lease(fence);
            Change {
                save,
                ..Change::saved(())
            }
        });
        change.await?;
        Ok(())
    }

    /// Nothing was sent. The lease is given back, so that nobody has to wait for its end.
    async fn give_back(
        &self,
        key: GrantKey,
        fence: i64,
        lease_ends: Duration,
        error: RefreshError,
    ) -> Result<bool, RefreshError> {
        let failure = self.own_failure(&error);
        self.record(key, fence, &failure, lease_ends).await?;
        Err(error)
    }

    /// Keys, tokens, and the room for the answer. What fails here fails before anything is sent.
    async fn take_in_hand<'a>(
        &self,
        grant: Grant,
        terms: Terms<'a>,
    ) -> Result<(InHand<'a>, Vec<Candidate>, Slot), RefreshError> {
        let began_at = self.deps.clock.boottime();
        let data_key = self.keys.newest(grant.key.tenant).await?;
        failpoint::reach("key_in_hand", grant.key.id);
        let others = self.other_tokens(&grant).await?;
        let candidates = self.candidates(&grant, terms.resolved).await?;
        failpoint::reach("tokens_in_hand", grant.key.id);
        let slot = self
            .spool
            .allocate(grant.key.tenant.new_id(&self.deps))
            .await?;
        failpoint::reach("slot_in_hand", grant.key.id);
        Ok((
            InHand {
                grant,
                client: terms.client,
                resolved: terms.resolved,
                pass: terms.pass,
                data_key,
                others,
                lease_ends: terms.lease_ends,
                began_at,
            },
            candidates,
            slot,
        ))
    }

    async fn other_tokens(&self, grant: &Grant) -> Result<Vec<NamedToken>, RefreshError> {
        let Some(sealed) = grant
            .credential
            .as_ref()
            .filter(|_| !grant.token_names.is_empty())
        else {
            return Ok(Vec::new());
        };
        let place = secrets::credential_place(grant.key, grant.version);
        let credential: Credential = secrets::open(&self.keys, &place, sealed).await?;
        Ok(credential.others())
    }

    /// The present token first; then one that came too late, and the one before while the provider still takes it.
    async fn candidates(
        &self,
        grant: &Grant,
        resolved: &Resolved,
    ) -> Result<Vec<Candidate>, RefreshError> {
        if grant.refresh_token.is_none() {
            return Ok(vec![Candidate { token: None }]);
        }
        let key = grant.key;
        let present = grant
            .refresh_token
            .as_ref()
            .map(|sealed| (secrets::refresh_token_place(key, grant.version), sealed));
        let alternate = grant
            .alternate
            .as_ref()
            .map(|kept| (secrets::alternate_place(key, kept.version), &kept.sealed));
        let previous = grant
            .previous
            .as_ref()
            .filter(|kept| kept.until > grant.read_at);
        let previous =
            previous.map(|kept| (secrets::previous_place(key, grant.version), &kept.sealed));
        let mut candidates = Vec::new();
        for (place, sealed) in [present, alternate, previous].into_iter().flatten() {
            let token: RefreshToken = secrets::open(&self.keys, &place, sealed).await?;
            if token.origin != origin(&resolved.refresh_url) {
                let error = format!(
                    "the token endpoint is not at {}, where the grant came from",
                    token.origin
                );
                return Err(RefreshError::Misconfigured { error });
            }
            candidates.push(Candidate {
                token: Some(token.value()),
            });
        }
        Ok(candidates)
    }

    /// The request: the connection first, then the last look at lease and fence, then the first byte. Each request has a
    /// whole lease before it.
    async fn send(
        &self,
        in_hand: &mut InHand<'_>,
        candidate: &Candidate,
    ) -> Result<Brought, RefreshError> {
        let resolved = in_hand.resolved;
        let renewal = resolved
            .renewal(&in_hand.grant, candidate.token.as_ref())
            .map_err(|error| RefreshError::Misconfigured {
                error: error.to_string(),
            })?;
        let prepared = match resolved
            .prepare(
                renewal.url,
                &renewal.traded(),
                &self.providers.egress,
                self.provider_timeout,
                &self.deps,
            )
            .await
        {
            Ok(prepared) => prepared,
            Err(error) => return Ok(Brought::Failure(error.failure(), in_hand.grant.read_at)),
        };
        failpoint::reach("connected", in_hand.grant.key.id);
        let renewed_at = self.deps.clock.boottime();
        if renewed_at >= in_hand.lease_ends {
            return Ok(Brought::LeaseLost);
        }
        let Some(sent_at) = self.store.intent_send(&in_hand.grant, self.lease()).await? else {
            return Ok(Brought::LeaseLost);
        };
        in_hand.lease_ends = renewed_at + self.lease();
        failpoint::reach("before_send", in_hand.grant.key.id);
        // The statement may have taken its time, and the machine may have slept.
        if self.deps.clock.boottime() + self.provider_timeout > in_hand.lease_ends {
            return Ok(Brought::LeaseLost);
        }
        let deps = at_database_time(&self.deps, sent_at);
        Ok(match prepared.send(&self.providers.egress, &deps).await {
            Ok(mut tokens) => {
                renewal.keep(&mut tokens, &in_hand.others);
                Brought::Tokens(tokens, sent_at)
            }
            Err(failure) => Brought::Failure(failure, sent_at),
        })
    }

    async fn take_answer(
        &self,
        in_hand: &InHand<'_>,
        slot: Slot,
        candidate: &Candidate,
        tokens: &TokenSet,
        sent_at: OffsetDateTime,
    ) -> Result<(), RefreshError> {
        let grant = &in_hand.grant;
        let random = self.random();
        let seals = Seals {
            keys: &self.keys,
            data_key: &in_hand.data_key,
            resolved: in_hand.resolved,
            random,
        };
        let answer = seal_tokens(
            &seals,
            grant,
            candidate.token.as_ref(),
            tokens,
            sent_at,
            None,
        );
        let settled = self.settle(slot, answer).await.map_err(|error| {
            tracing::error!(
                event = "answer_not_stored",
                tenant.id = %grant.key.tenant,
                grant.id = %grant.key.id,
                error = %Chain(&error),
                "new tokens cannot be stored; they stay in the spool"
            );
            RefreshError::Pending
        })?;
        self.statistics.count(
            grant.key.tenant,
            "grant_refreshes",
            &[("outcome", "refreshed")],
        );
        self.refresh_metrics.refreshed(
            &in_hand.client.settings.provider,
            self.deps.clock.boottime().saturating_sub(in_hand.began_at),
            None,
        );
        tracing::info!(
            event = "grant_refreshed",
            tenant.id = %grant.key.tenant,
            grant.id = %grant.key.id,
            version = grant.version + 1,
            outcome = ?settled,
            "a grant has new tokens"
        );
        self.client_accepted(in_hand.client).await;
        if settled == Settled::TooLate {
            Err(RefreshError::Ended)
        } else {
            Ok(())
        }
    }
}
