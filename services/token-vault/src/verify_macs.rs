//! Whether messages bear a MAC made with a client's secret. The secret stays here, and so does which of the two it was.

use aws_lc_rs::hmac;
use common::{Secret, TenantKey};

use crate::error::Error;
use crate::grant::ClientKey;
use crate::oauth_client::AuthMethod;
use crate::vault::Vault;

/// What is to be verified.
#[derive(Clone, Debug)]
pub(crate) struct Macs {
    /// Who asks.
    pub(crate) tenant: TenantKey,
    pub(crate) client: ClientKey,
    pub(crate) algorithm: hmac::Algorithm,
    pub(crate) messages: Vec<Signed>,
}

/// A message, and what is said to be its MAC.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    pub(crate) message: Vec<u8>,
    pub(crate) mac: Vec<u8>,
}

impl Vault {
    /// In the order asked. While a secret is being replaced, either will do.
    pub(crate) async fn verify_macs(&self, macs: &Macs) -> Result<Vec<bool>, Error> {
        let client = self.known_client(macs.client).await?;
        let has_shared_secret = matches!(
            client.settings.auth_method,
            AuthMethod::SecretBasic | AuthMethod::SecretPost
        );
        if !has_shared_secret {
            return Err(Error::Misconfigured {
                error: "the client has no secret that the provider could sign with".to_owned(),
            });
        }
        let (secret, previous) = self.providers.secrets(&client).await?;
        let key =
            |secret: Secret<String>| hmac::Key::new(macs.algorithm, secret.expose().as_bytes());
        let keys: Vec<_> = secret.into_iter().chain(previous).map(key).collect();
        let verified: Vec<_> = macs
            .messages
            .iter()
            .map(|signed| signed.is_by_any_of(&keys))
            .collect();
        let refused = verified.iter().filter(|valid| !**valid).count();
        for (outcome, count) in [("valid", verified.len() - refused), ("refused", refused)] {
            self.statistics.add(
                macs.tenant,
                "macs_verified",
                &[("outcome", outcome)],
                count as f64,
            );
        }
        Ok(verified)
    }
}

impl Signed {
    /// Every key is tried, whichever fits, and each in constant time.
    fn is_by_any_of(&self, keys: &[hmac::Key]) -> bool {
        keys.iter().fold(false, |found, key| {
            found | hmac::verify(key, &self.message, &self.mac).is_ok()
        })
    }
}
