//! The person says yes: the browser is bound, and sent to the provider.

use std::collections::BTreeMap;

use common::pg::Scope;
use common::{Secret, TenantKey};
use contracts::broker::v1::AuthMode;
use oauth_client::{AuthorizationRequest, Dialect, Verifier};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::broker::Broker;
use crate::error::Error;
use crate::integration::Integration;
use crate::link_token;
use crate::sealer::Place;
use crate::session::{STATE_TTL, Session};
use crate::store::authorizations::{Authorization, authorization_insert};
use crate::store::sessions::session_bind;

/// What has to come back to the exchange, and is nobody else's business meanwhile.
#[derive(Serialize, Deserialize)]
pub(crate) struct KeptSecrets {
    pub(crate) verifier: String,
    pub(crate) nonce: String,
}

impl Broker {
    /// Binds the session to the browser that holds `browser`, and makes the URL to send it to.
    pub(crate) async fn start_authorization(
        &self,
        session: &Session,
        integration: &Integration,
        browser: &Secret<String>,
    ) -> Result<Url, Error> {
        if integration.auth_mode != AuthMode::Oauth2Code {
            return Err(Error::Misconfigured(
                "the integration has no authorization in a browser".to_owned(),
            ));
        }
        let tenant = session.tenant;
        let resolved = integration.resolve()?;
        let provider = resolved.provider();
        if integration
            .discovered
            .as_ref()
            .is_some_and(|discovered| discovered.push_required)
        {
            let what =
                "the issuer wants pushed authorization requests, which this version does not send";
            return Err(Error::Misconfigured(what.to_owned()));
        }
        let parameters = resolved.parameters(&session.connection_parameters)?;
        let template = provider.endpoints.authorization.as_ref();
        let template = template.ok_or_else(|| {
            Error::Misconfigured("the integration has no authorization endpoint".to_owned())
        })?;
        let endpoint = resolved
            .url(template, &parameters)
            .map_err(|error| Error::Misconfigured(error.to_string()))?;

        let scopes = integration.requested_scopes(provider, &session.scopes);
        let verifier = provider.pkce.is_sent().then(|| Verifier::new(&self.deps));
        let nonce = scopes
            .iter()
            .any(|scope| scope == "openid")
            .then(|| self.deps.token(""));
        let state = link_token::fresh(tenant, &self.deps);
        let state_hash = link_token::hash(state.expose());
        let redirect_uri = integration.redirect_uri(&self.public_url);
        let mut extra: BTreeMap<String, String> = provider.authorization_params.clone();
        extra.extend(session.authorization_params.clone());
        let request = AuthorizationRequest {
            endpoint: &endpoint,
            client_id: &integration.client_id,
            redirect_uri: &redirect_uri,
            scopes: &scopes,
            state: &state,
            verifier: verifier.as_ref(),
            nonce: nonce.as_ref().map(|nonce| nonce.expose().as_str()),
            extra: &extra,
        };
        let url = request.url(&Dialect::from(provider));

        let text = |secret: Option<&Secret<String>>| {
            secret
                .map(|secret| secret.expose().clone())
                .unwrap_or_default()
        };
        let kept = KeptSecrets {
            verifier: text(verifier.as_ref().map(Verifier::secret)),
            nonce: text(nonce.as_ref()),
        };
        let kept = Secret::new(serde_json::to_string(&kept).map_err(Error::Corrupt)?);
        let sealed = self
            .sealer
            .seal(verifier_place(tenant, &state_hash), &kept)
            .await?;
        let now = self.deps.now();
        let authorization = Authorization {
            tenant,
            session_id: session.session_id,
            browser_hash: link_token::hash(browser.expose()),
            integration_tenant: integration.tenant,
            integration_id: integration.integration_id.clone(),
            redirect_uri: redirect_uri.clone(),
            grant_id: tenant.new_id(&self.deps),
            requested_scopes: scopes.clone(),
            sealed: Some(sealed),
            created_at: now,
            expires_at: now + STATE_TTL,
            consumed_at: None,
        };
        self.db
            .run_tx("authorization_start", Scope::Tenant(tenant), async move |tx| {
                let owner = (authorization.integration_tenant, authorization.integration_id.as_str());
                if !session_bind(tx, authorization.session_id, &authorization.browser_hash, owner, now).await? {
                    let advice = "the link was opened in another browser, used already, or is too old; make a new one";
                    return Err(Error::SessionOver { advice });
                }
                authorization_insert(tx, &state_hash, &authorization).await?;
                Ok(())
            })
            .await?;
        tracing::info!(
            event = "oauth_start",
            tenant.id = %tenant,
            user.id = session.user_id,
            session.id = %session.session_id,
            integration.id = integration.integration_id,
            provider = integration.provider,
            "a user is sent to {} to authorise",
            provider.display_name
        );
        Ok(url)
    }
}

/// Where the verifier and the nonce of a state are kept.
pub(crate) fn verifier_place(tenant: TenantKey, state_hash: &[u8]) -> Place<'_> {
    Place {
        tenant,
        table: "authorizations",
        column: "sealed",
        row: state_hash,
    }
}
