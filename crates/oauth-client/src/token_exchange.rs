//! An access token traded for one that lives longer: Meta's `fb_exchange_token` and the like.

use common::Secret;
use provider_catalog::{ClientParams, ExchangeCall};

use crate::client::{Client, ClientAuth, Field};

/// The parameters of a trade. They name the client as the provider wants it, which is none of the standard's ways.
pub(crate) fn fields<'a>(
    call: &'a ExchangeCall,
    token: &Secret<String>,
    client: &Client,
) -> Vec<Field<'a>> {
    let mut fields: Vec<Field<'a>> = vec![
        ("grant_type", Secret::from(call.grant_type.as_str())),
        (call.token_param.as_str(), token.clone()),
    ];
    if call.client == ClientParams::IdAndSecret {
        fields.push(("client_id", Secret::from(client.id.as_str())));
    }
    if call.client != ClientParams::None
        && let ClientAuth::SecretBasic(secret) | ClientAuth::SecretPost(secret) = &client.auth
    {
        fields.push(("client_secret", secret.clone()));
    }
    fields
}
