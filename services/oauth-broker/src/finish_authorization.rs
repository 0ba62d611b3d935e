//! The browser is back: the state is used up, the code traded, the provider asked who it was, and the connection saved.

use common::pg::{Scope, Tx};
use common::problem::Chain;
use common::{Secret, TenantKey, pg};
use contracts::broker::v1::ConnectSessionState;
use contracts::vault::v1::{
    AuthorizationCode, ExchangeAuthorizationRequest, Grant,
    exchange_authorization_request::Authorization as By,
};
use oauth_client::{Callback, CallbackProblem};
use provider_catalog::ResolvedProvider;
use serde_json::Value;

use crate::broker::{Broker, browser_caller};
use crate::clients::map;
use crate::connection::GrantFacts;
use crate::error::Error;
use crate::events;
use crate::integration::Integration;
use crate::link_token;
use crate::provider_api::ProviderApi;
use crate::save_connection::Saving;
use crate::session::{Authorized, PersonFacts, STATE_TTL, Session};
use crate::start_authorization::{KeptSecrets, verifier_place};
use crate::store::authorizations::{Authorization, authorization_consume, authorization_get};
use crate::store::connections::connection_by_grant;
use crate::store::grant_duties::{Duty, duty_put};
use crate::store::sessions::{session_fail, session_get, session_lock, session_progress};

/// A second callback waits for the first one, this often and this long.
const FIRST_RESULT_LOOKS: u32 = 100;
const FIRST_RESULT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// What became of a callback.
#[derive(Debug)]
pub(crate) enum Finished {
    /// The session has gone on; its page, or its return URL, says how.
    Session(Box<Session>),
    /// The session waits for the host application, which needs this code.
    AwaitingConfirmation(Box<Session>, Secret<String>),
    /// Another browser began.
    OtherBrowser,
    /// The state is unknown, or too old.
    Unknown,
}

impl Broker {
    /// Works on an authorization response. `browser` finds the browser's secret for a session among its cookies.
    pub(crate) async fn finish_authorization(
        &self,
        callback: &Callback,
        redirect_uri: &str,
        browser: impl Fn(uuid::Uuid) -> Option<String>,
    ) -> Result<Finished, Error> {
        let Some((bucket, state_hash)) = link_token::presented(callback.state.expose()) else {
            return Ok(Finished::Unknown);
        };
        let Some(known) = authorization_get(&self.db, bucket, &state_hash).await? else {
            return Ok(Finished::Unknown);
        };
        let Some(browser_hash) = browser(known.session_id).map(|secret| link_token::hash(&secret))
        else {
            return Ok(refused(&known));
        };
        if browser_hash != known.browser_hash {
            return Ok(refused(&known));
        }
        let consumed =
            authorization_consume(&self.db, bucket, &state_hash, &browser_hash, redirect_uri)
                .await?;
        let session = session_get(&self.db, Scope::Tenant(known.tenant), known.session_id).await?;
        let session = session.ok_or(Error::NotFound("session"))?;
        let Some(authorization) = consumed else {
            // A second callback shows the first one's result (RFC 6749, 4.1.2: a code is good once). The first may have come
            // after the look above.
            let now = authorization_get(&self.db, bucket, &state_hash).await?;
            let repeated = now
                .is_some_and(|now| now.consumed_at.is_some() && now.redirect_uri == redirect_uri);
            tracing::info!(
                event = "oauth_callback_refused", tenant.id = %known.tenant, user.id = session.user_id,
                session.id = %session.session_id, repeated, "an authorization response came again, too late, or elsewhere"
            );
            if !repeated {
                return Ok(Finished::Unknown);
            }
            return Ok(Finished::Session(Box::new(
                self.first_result(session).await?,
            )));
        };
        if session.finished_at.is_some() {
            return Ok(Finished::Session(Box::new(session)));
        }
        let work = Box::pin(self.follow_callback(callback, &session, &authorization, &state_hash));
        let outcome = common::identity::scope(browser_caller(&session), work).await;
        match outcome {
            Ok(finished) => Ok(finished),
            Err(error) => {
                self.fail_session(&session, &error, Some(authorization.grant_id))
                    .await
            }
        }
    }

    /// The session once the callback that came first has made something of it.
    async fn first_result(&self, mut session: Session) -> Result<Session, Error> {
        for _ in 0..FIRST_RESULT_LOOKS {
            if session.state != ConnectSessionState::Authorizing {
                break;
            }
            tokio::time::sleep(FIRST_RESULT_PAUSE).await;
            let found =
                session_get(&self.db, Scope::Tenant(session.tenant), session.session_id).await?;
            session = found.ok_or(Error::NotFound("session"))?;
        }
        Ok(session)
    }

    async fn follow_callback(
        &self,
        callback: &Callback,
        session: &Session,
        authorization: &Authorization,
        state_hash: &[u8],
    ) -> Result<Finished, Error> {
        let integration = self
            .integration_of(
                authorization.integration_tenant,
                &authorization.integration_id,
            )
            .await?;
        let resolved = integration.resolve()?;
        tracing::info!(
            event = "oauth_callback", tenant.id = %session.tenant, user.id = session.user_id,
            session.id = %session.session_id, integration.id = integration.integration_id,
            "a user is back from {}", resolved.provider().display_name
        );
        let announced = integration
            .discovered
            .as_ref()
            .is_some_and(|discovered| discovered.iss_announced);
        let issuer = integration.issuer(resolved.provider());
        let code = match callback
            .check_issuer(issuer.as_deref(), announced)
            .and_then(|()| callback.outcome.clone())
        {
            Ok(code) => code,
            Err(problem) => return self.refuse_callback(session, &problem).await,
        };
        let grant = self
            .trade(session, authorization, &integration, state_hash, &code)
            .await?;
        let authorized = self
            .look_around(session, authorization, &resolved, &grant)
            .await?;
        self.take(session, &integration, &resolved, authorized)
            .await
    }

    /// What the person decided, or the provider; its words are for the log alone.
    async fn refuse_callback(
        &self,
        session: &Session,
        problem: &CallbackProblem,
    ) -> Result<Finished, Error> {
        let (error, reason) = match problem {
            CallbackProblem::Declined => ("access_denied", "access_denied".to_owned()),
            CallbackProblem::Refused { code, .. } => ("authorization_failed", code.clone()),
            CallbackProblem::Issuer => ("invalid_response", "ISSUER_MISMATCH".to_owned()),
            CallbackProblem::Unsolicited | CallbackProblem::Repeated | CallbackProblem::Empty => {
                ("invalid_response", "INVALID_RESPONSE".to_owned())
            }
        };
        let description = match problem {
            CallbackProblem::Refused { description, .. } => description.as_deref(),
            _ => None,
        };
        tracing::info!(
            event = "oauth_refused", tenant.id = %session.tenant, user.id = session.user_id,
            session.id = %session.session_id, error, reason, description, "an authorization was not given: {problem}"
        );
        self.end_session(session, ConnectSessionState::Failed, error, &reason, None)
            .await
    }

    async fn trade(
        &self,
        session: &Session,
        authorization: &Authorization,
        integration: &Integration,
        state_hash: &[u8],
        code: &Secret<String>,
    ) -> Result<Grant, Error> {
        let sealed = authorization.sealed.as_deref().unwrap_or_default();
        let kept = self
            .sealer
            .open(verifier_place(session.tenant, state_hash), sealed)
            .await?;
        let kept: KeptSecrets = serde_json::from_str(kept.expose()).map_err(Error::Corrupt)?;
        let oauth_client_id = integration.oauth_client_id.ok_or_else(|| {
            Error::Misconfigured("the integration has no OAuth client".to_owned())
        })?;
        let parameters = integration
            .resolve()?
            .parameters(&session.connection_parameters)?;
        self.vault
            .exchange(ExchangeAuthorizationRequest {
                tenant_id: session.tenant.to_string(),
                oauth_client_id: oauth_client_id.to_string(),
                grant_id: authorization.grant_id.to_string(),
                oauth_client_tenant_id: integration.tenant.to_string(),
                expected_version: 0,
                parameters: map(&parameters),
                authorization: Some(By::AuthorizationCode(AuthorizationCode {
                    code: code.expose().clone(),
                    redirect_uri: authorization.redirect_uri.clone(),
                    code_verifier: kept.verifier,
                    nonce: kept.nonce,
                })),
            })
            .await
    }

    /// Asks the provider who gave the grant, and which accounts it reaches.
    async fn look_around(
        &self,
        session: &Session,
        authorization: &Authorization,
        resolved: &ResolvedProvider,
        grant: &Grant,
    ) -> Result<Authorized, Error> {
        let parameters = resolved.parameters(&session.connection_parameters)?;
        let api = ProviderApi {
            egress: &self.egress,
            resolved,
            parameters: &parameters,
        };
        let scopes = authorization.requested_scopes.clone();
        self.authorized(session.tenant, api, grant, scopes).await
    }

    /// What a fresh grant is good for.
    pub(crate) async fn authorized(
        &self,
        tenant: TenantKey,
        api: ProviderApi<'_>,
        grant: &Grant,
        requested_scopes: Vec<String>,
    ) -> Result<Authorized, Error> {
        let facts = GrantFacts::of(grant)
            .ok_or_else(|| Error::Misconfigured("the vault's grant has no id".to_owned()))?;
        let raw: Value = serde_json::from_str(&grant.raw_json).unwrap_or_default();
        let credential = self
            .vault
            .credential(tenant, facts.grant_id, None, "identity of a new connection")
            .await?;
        let person = api.person(&raw, &credential).await?;
        let accounts = api.accounts(&person, &credential).await?;
        Ok(Authorized {
            grant: facts,
            person: PersonFacts::from(&person),
            accounts,
            parameters: api.parameters.clone(),
            requested_scopes,
            metadata_json: grant.raw_json.clone(),
            chosen: None,
        })
    }

    /// Saves the connection, unless somebody has to choose or to confirm first.
    pub(crate) async fn take(
        &self,
        session: &Session,
        integration: &Integration,
        resolved: &ResolvedProvider,
        authorized: Authorized,
    ) -> Result<Finished, Error> {
        if authorized.needs_choice(integration, resolved.provider().multiple_accounts) {
            let state = ConnectSessionState::ChoosingAccount;
            return Ok(Finished::Session(Box::new(
                self.keep(session, state, authorized, None).await?,
            )));
        }
        if session.require_confirmation {
            let code = link_token::fresh(session.tenant, &self.deps);
            let hash = link_token::hash(code.expose());
            let state = ConnectSessionState::AwaitingConfirmation;
            let kept = self.keep(session, state, authorized, Some(hash)).await?;
            return Ok(Finished::AwaitingConfirmation(Box::new(kept), code));
        }
        self.save_for_session(session, integration, authorized)
            .await?;
        let session =
            session_get(&self.db, Scope::Tenant(session.tenant), session.session_id).await?;
        Ok(Finished::Session(Box::new(
            session.ok_or(Error::NotFound("session"))?,
        )))
    }

    /// Saves what a session has led to.
    pub(crate) async fn save_for_session(
        &self,
        session: &Session,
        integration: &Integration,
        authorized: Authorized,
    ) -> Result<crate::connection::Connection, Error> {
        self.save_connection(Saving {
            integration,
            tenant: session.tenant,
            user_id: &session.user_id,
            user_email: &session.user_email,
            labels: &session.labels,
            reconnect: session.reconnect_connection_id,
            session_id: Some(session.session_id),
            authorized: &authorized,
            actor: &browser_caller(session).actor,
            action: "ConnectService/Callback",
        })
        .await
    }

    async fn keep(
        &self,
        session: &Session,
        state: ConnectSessionState,
        authorized: Authorized,
        confirmation_hash: Option<Vec<u8>>,
    ) -> Result<Session, Error> {
        let session_id = session.session_id;
        self.db
            .run_tx(
                "session_keep",
                Scope::Tenant(session.tenant),
                async move |tx| {
                    let open = session_lock(tx, session_id)
                        .await?
                        .filter(|session| session.finished_at.is_none());
                    let Some(open) = open else {
                        return Err(Error::SessionOver {
                            advice: "the link was used already; make a new one",
                        });
                    };
                    // Whoever has signed in has time to choose, or to be confirmed.
                    let until = open.expires_at.max(tx.deps().now() + STATE_TTL);
                    let hash = confirmation_hash.as_deref();
                    session_progress(tx, session_id, state, &authorized, hash, until).await?;
                    session_lock(tx, session_id)
                        .await?
                        .ok_or(Error::NotFound("session"))
                },
            )
            .await
    }

    /// Notes why a session led to nothing; its grant, if it came to one, is revoked.
    pub(crate) async fn fail_session(
        &self,
        session: &Session,
        error: &Error,
        grant_id: Option<uuid::Uuid>,
    ) -> Result<Finished, Error> {
        let (word, reason) = error.session_outcome();
        tracing::warn!(
            event = "connect_failed", tenant.id = %session.tenant, user.id = session.user_id,
            session.id = %session.session_id, reason, error = %Chain(error), "a user could not be connected"
        );
        self.end_session(
            session,
            ConnectSessionState::Failed,
            word,
            &reason,
            grant_id,
        )
        .await
    }

    /// Ends a session without a connection.
    pub(crate) async fn end_session(
        &self,
        session: &Session,
        state: ConnectSessionState,
        error: &str,
        reason: &str,
        grant_id: Option<uuid::Uuid>,
    ) -> Result<Finished, Error> {
        let (tenant, session_id) = (session.tenant, session.session_id);
        let grant_id = grant_id.or(session
            .authorized
            .as_ref()
            .map(|authorized| authorized.grant.grant_id));
        let (error, reason) = (error.to_owned(), reason.to_owned());
        let (ended, orphan) = self
            .db
            .run_tx(
                "session_end",
                Scope::Tenant(tenant),
                async move |tx: &Tx| {
                    let ended = session_fail(tx, session_id, state, &error, &reason).await?;
                    let session = session_lock(tx, session_id).await?;
                    if let (true, Some(session)) = (ended, &session) {
                        events::append_failure(tx, session).await?;
                    }
                    let mut orphan = None;
                    if let Some(grant_id) = grant_id
                        && connection_by_grant(tx, tenant, grant_id).await?.is_none()
                    {
                        duty_put(tx, tenant, grant_id, Duty::Revoke).await?;
                        orphan = Some(grant_id);
                    }
                    Ok::<_, pg::Error>((session, orphan))
                },
            )
            .await?;
        self.statistics
            .count(tenant, "connect_sessions", &[("outcome", "failed")]);
        if let Some(grant_id) = orphan {
            self.settle_now(tenant, grant_id, Duty::Revoke).await;
        }
        Ok(Finished::Session(Box::new(
            ended.ok_or(Error::NotFound("session"))?,
        )))
    }
}

fn refused(known: &Authorization) -> Finished {
    tracing::info!(
        event = "oauth_callback_refused", tenant.id = %known.tenant, session.id = %known.session_id,
        "an authorization response came to another browser than the one that began"
    );
    Finished::OtherBrowser
}
