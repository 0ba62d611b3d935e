//! How to authenticate to a provider's token endpoint: told by the client's owner, and never told back.

use common::Secret;
use common::identity::Actor;
use common::problem::FieldViolation;
use oauth_client::SigningKey;
use time::OffsetDateTime;

use crate::error::Error;
use crate::grant::ClientKey;
use crate::keys::SealingKey;
use crate::oauth_client::{AuthMethod, OAuthClient, SealedSecret, Settings};
use crate::providers::{Providers, secret_place};
use crate::secrets;
use crate::store::PutOutcome;
use crate::vault::Vault;

/// What is put.
#[derive(Clone, Debug)]
pub(crate) struct PutClient {
    pub(crate) key: ClientKey,
    pub(crate) settings: Settings,
    /// `None` keeps the one before.
    pub(crate) secret: Option<Secret<String>>,
    pub(crate) previous_secret: Option<(Secret<String>, OffsetDateTime)>,
    pub(crate) actor: Actor,
}

impl Vault {
    /// Replaces the client, or makes it.
    pub(crate) async fn put_oauth_client(&self, put: PutClient) -> Result<(), Error> {
        if Providers::entry(&put.settings.provider).is_none() {
            return Err(invalid("oauth_client.provider", "is not in the catalogue"));
        }
        check_key(&put)?;
        let before = self.store.oauth_client_get(put.key).await?;
        let data_key = self.keys.newest(put.key.tenant).await?;
        let client = match &put.secret {
            Some(secret) => self.with_new_secret(&put, before.as_ref(), secret, &data_key),
            None => self.with_kept_secret(&put, before, &data_key).await?,
        };
        match self.store.oauth_client_put(&client, &put.actor).await? {
            PutOutcome::Written => Ok(()),
            PutOutcome::Changed => Err(Error::Conflict),
        }
    }

    fn with_new_secret(
        &self,
        put: &PutClient,
        before: Option<&OAuthClient>,
        secret: &Secret<String>,
        data_key: &SealingKey,
    ) -> OAuthClient {
        let version = before.map_or(1, |before| before.version + 1);
        let mut client = self.blank(put, version, version, data_key);
        client.secret = Some(self.seal_secret(&client, "secret", secret, data_key));
        self.add_previous(&mut client, put, data_key);
        client
    }

    /// What says where a secret goes may change only together with the secret.
    async fn with_kept_secret(
        &self,
        put: &PutClient,
        before: Option<OAuthClient>,
        data_key: &SealingKey,
    ) -> Result<OAuthClient, Error> {
        let missing = || invalid("oauth_client.client_secret", "is required");
        if !put.settings.auth_method.needs_secret() {
            let version = before.map_or(1, |before| before.version + 1);
            return Ok(self.blank(put, version, version, data_key));
        }
        let before = before
            .filter(|before| before.secret.is_some())
            .ok_or_else(missing)?;
        if before.settings.destination() != put.settings.destination() {
            let description =
                "is required where the provider, an endpoint, or the way of authentication changes";
            return Err(invalid("oauth_client.client_secret", description));
        }
        let mut client = self.blank(put, before.version + 1, before.version + 1, data_key);
        let sealed = before.secret.as_deref().unwrap_or_default();
        let opened: SealedSecret =
            secrets::open(&self.keys, &secret_place(&before, "secret"), sealed).await?;
        let misfit = |_| Error::Misconfigured {
            error: "the stored secret was given for other endpoints".to_owned(),
        };
        let secret = opened.reveal(&before.settings).map_err(misfit)?;
        client.secret = Some(self.seal_secret(&client, "secret", &secret, data_key));
        self.add_previous(&mut client, put, data_key);
        Ok(client)
    }

    fn blank(
        &self,
        put: &PutClient,
        version: i64,
        secret_version: i64,
        data_key: &SealingKey,
    ) -> OAuthClient {
        OAuthClient {
            key: put.key,
            settings: put.settings.clone(),
            secret: None,
            previous_secret: None,
            previous_secret_expires_at: None,
            secret_version,
            key_version: data_key.version().cast_signed(),
            version,
            refusal: None,
            read_at: self.deps.now(),
        }
    }

    fn add_previous(&self, client: &mut OAuthClient, put: &PutClient, data_key: &SealingKey) {
        if let Some((previous, until)) = &put.previous_secret {
            client.previous_secret =
                Some(self.seal_secret(client, "previous_secret", previous, data_key));
            client.previous_secret_expires_at = Some(*until);
        }
    }

    fn seal_secret(
        &self,
        client: &OAuthClient,
        column: &'static str,
        secret: &Secret<String>,
        data_key: &SealingKey,
    ) -> Vec<u8> {
        let sealed = SealedSecret::for_settings(secret, &client.settings);
        secrets::seal(&self.keys, data_key, &secret_place(client, column), &sealed)
    }
}

/// A private key is tried before it is kept.
fn check_key(put: &PutClient) -> Result<(), Error> {
    if put.settings.auth_method != AuthMethod::PrivateKeyJwt {
        return Ok(());
    }
    let previous = put.previous_secret.as_ref().map(|(secret, _)| secret);
    let violation = |field: &str, secret: Option<&Secret<String>>| {
        let error = SigningKey::from_pem(secret?).err()?;
        Some(FieldViolation {
            field: field.to_owned(),
            description: error.to_string(),
        })
    };
    let violations: Vec<_> = [
        violation("oauth_client.client_secret", put.secret.as_ref()),
        violation("oauth_client.previous_client_secret", previous),
    ]
    .into_iter()
    .flatten()
    .collect();
    if violations.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid(violations))
    }
}

fn invalid(field: &str, description: &str) -> Error {
    Error::Invalid(vec![FieldViolation {
        field: field.to_owned(),
        description: description.to_owned(),
    }])
}
