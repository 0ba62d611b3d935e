//! Who signed in, as the id_token says.

use std::time::Duration;

use common::problem::Chain;
use oauth_client::{IdToken, IdTokenError, IdTokenExpectations, TokenSet};
use serde_json::Value;
use time::OffsetDateTime;

use super::{Exchange, Unsuccessful};
use crate::error::Error;
use crate::grant::GrantKey;
use crate::providers::{Resolved, at_database_time};
use crate::refresh_grant::new_tokens::origin;
use crate::secrets::{Credential, RefreshToken, RevocableTokens};
use crate::vault::Vault;

impl Vault {
    /// Puts the id_token's claims beside the answer, once they are believed. Tokens of somebody who is not are revoked.
    pub(super) async fn with_identity(
        &self,
        exchange: &Exchange,
        resolved: &Resolved,
        mut tokens: TokenSet,
        key: GrantKey,
        sent_at: OffsetDateTime,
    ) -> Result<TokenSet, Unsuccessful> {
        let (Some(id_token), Some(issuer), Some(jwks)) =
            (&tokens.id_token, &resolved.issuer, &resolved.jwks_url)
        else {
            return Ok(tokens);
        };
        let expected = IdTokenExpectations {
            issuer,
            client_id: &resolved.client().id,
            nonce: exchange.authorization.nonce(),
            access_token: Some(&tokens.access_token),
        };
        let deps = at_database_time(&self.deps, sent_at);
        match IdToken::verify(id_token, &expected, jwks, &self.providers.documents, &deps).await {
            Ok(verified) => {
                tokens
                    .raw
                    .insert("id_token".to_owned(), Value::Object(verified.claims));
                Ok(tokens)
            }
            Err(error) => {
                tracing::warn!(
                    event = "id_token_refused",
                    tenant.id = %key.tenant,
                    grant.id = %key.id,
                    error = %Chain(&error),
                    "an id_token is not believed, so its grant is revoked"
                );
                self.drop_tokens(exchange, resolved, &tokens).await;
                let error = match error {
                    IdTokenError::Keys(_) => Error::ProviderUnavailable {
                        wait: Duration::from_secs(1),
                    },
                    error => Error::Misconfigured {
                        error: error.to_string(),
                    },
                };
                Err(Unsuccessful {
                    error,
                    is_spent: true,
                })
            }
        }
    }

    async fn drop_tokens(&self, exchange: &Exchange, resolved: &Resolved, tokens: &TokenSet) {
        let credential = Credential::AccessToken {
            value: tokens.access_token.expose().clone(),
            others: Vec::new(),
            revocation_origin: resolved.revocation_url.as_ref().map(origin),
        };
        let refresh_token = tokens
            .refresh_token
            .as_ref()
            .map(|token| RefreshToken::new(token, origin(&resolved.refresh_url)));
        let tokens = RevocableTokens::of(refresh_token.as_ref(), Some(&credential));
        let dropped = async {
            let revocation = self
                .revocation(
                    exchange.grant,
                    exchange.client,
                    exchange.parameters.clone(),
                    &tokens,
                )
                .await?;
            self.store.revocation_add(&revocation).await?;
            Ok::<_, Error>(())
        };
        if let Err(error) = dropped.await {
            tracing::error!(event = "tokens_not_revoked", error = %Chain(&error), "tokens that are not wanted could not be listed for revocation");
        }
    }
}
