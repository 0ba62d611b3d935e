//! What a simulator plays unless told otherwise.

use std::collections::BTreeSet;

use crate::config::{
    ApiShape, ClientAuth, ClientConfig, CompanyConfig, IdTokenAlg, Pkce, ProviderConfig,
    RefreshTokens, Replay, Revocation, Rotation, TokenShape, UserConfig,
};

/// An OpenID provider at the root, Procore under `/procore`, Microsoft under `/microsoft`.
pub(crate) fn providers() -> Vec<ProviderConfig> {
    vec![oidc(), procore(), microsoft()]
}

/// A provider that keeps to OAuth 2.1 and OpenID Connect and leaves a minute's grace to a client that lost an answer.
fn oidc() -> ProviderConfig {
    ProviderConfig {
        slug: "oidc".to_owned(),
        display_name: "Simulated OpenID Provider".to_owned(),
        openid: true,
        clients: vec![confidential("sim-oidc")],
        scopes: strings(&[
            "openid",
            "email",
            "profile",
            "offline_access",
            "records.read",
        ]),
        default_scopes: strings(&["records.read"]),
        rotation: Rotation::Grace {
            window_seconds: 60,
            replay: Replay::Same,
        },
        ..ProviderConfig::default()
    }
}

/// Procore: codes live 10 minutes, access tokens 90; refresh tokens are single use; no scopes; PKCE is tolerated; revoking a token ends the grant
/// (<https://developers.procore.com/documentation/oauth-endpoints>). That a reused refresh token revokes the grant is assumed: only its refusal is documented.
fn procore() -> ProviderConfig {
    ProviderConfig {
        slug: "procore".to_owned(),
        path: "/procore".to_owned(),
        display_name: "Procore (simulated)".to_owned(),
        apis: BTreeSet::from([ApiShape::Procore]),
        token_shape: TokenShape::Procore,
        clients: vec![ClientConfig {
            auth_methods: BTreeSet::from([ClientAuth::ClientSecretPost]),
            ..confidential("sim-procore")
        }],
        pkce: Pkce::Optional,
        iss_in_response: false,
        code_lifetime_seconds: 600,
        access_lifetime_seconds: 5400,
        rotation: Rotation::Strict,
        revocation: Revocation::Grant,
        ..ProviderConfig::default()
    }
}

/// Microsoft: a new refresh token with every answer while old ones stay good, 90 days sliding, only with `offline_access`; no RFC 7009 endpoint
/// (<https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow>).
fn microsoft() -> ProviderConfig {
    ProviderConfig {
        slug: "microsoft".to_owned(),
        path: "/microsoft".to_owned(),
        display_name: "Microsoft (simulated)".to_owned(),
        apis: BTreeSet::from([ApiShape::Graph]),
        openid: true,
        id_token_alg: IdTokenAlg::Rs256,
        token_shape: TokenShape::Microsoft,
        clients: vec![confidential("sim-microsoft")],
        scopes: strings(&[
            "openid",
            "email",
            "profile",
            "offline_access",
            ".default",
            "User.Read",
            "Mail.ReadBasic",
            "Mail.Read",
            "Mail.ReadWrite",
        ]),
        default_scopes: strings(&["User.Read"]),
        pkce: Pkce::Optional,
        iss_in_response: false,
        code_lifetime_seconds: 600,
        access_lifetime_seconds: 3600,
        refresh_tokens: RefreshTokens::OfflineAccess,
        rotation: Rotation::Overlapping,
        refresh_lifetime_seconds: Some(90 * 24 * 3600),
        revocation: Revocation::Unsupported,
        ..ProviderConfig::default()
    }
}

/// The secret is public knowledge: it opens nothing but invented records.
fn confidential(client_id: &str) -> ClientConfig {
    ClientConfig::confidential(client_id, "sim-secret", &[])
}

/// Ids above 2^49, as Procore's are.
pub(crate) fn companies() -> Vec<CompanyConfig> {
    let company = |id, name: &str| CompanyConfig {
        id,
        name: name.to_owned(),
        active: true,
    };
    vec![
        company(562_949_953_500_001, "Harbour & Vale Construction"),
        company(562_949_953_500_002, "Northgate Builders"),
        company(562_949_953_500_003, "Lindqvist Civil Works"),
    ]
}

/// Three people, of whom two share a company.
pub(crate) fn users() -> Vec<UserConfig> {
    let user = |key: &str, id, guid: &str, name: &str, companies: &[u64]| UserConfig {
        key: key.to_owned(),
        id,
        guid: guid.to_owned(),
        email: format!("{key}@example.com"),
        name: name.to_owned(),
        companies: companies.to_vec(),
    };
    vec![
        user(
            "alice",
            562_949_953_421_001,
            "5f1d7a52-0f6e-4a53-9d0c-1b6f0e9c0a01",
            "Alice Moreau",
            &[562_949_953_500_001, 562_949_953_500_002],
        ),
        user(
            "bob",
            562_949_953_421_002,
            "5f1d7a52-0f6e-4a53-9d0c-1b6f0e9c0a02",
            "Bob Okafor",
            &[562_949_953_500_002, 562_949_953_500_003],
        ),
        user(
            "carol",
            562_949_953_421_003,
            "5f1d7a52-0f6e-4a53-9d0c-1b6f0e9c0a03",
            "Carol Lindqvist",
            &[562_949_953_500_003],
        ),
    ]
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}
