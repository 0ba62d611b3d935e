//! What a simulator plays: its providers, their clients, and the people who log in.
//!
//! Everything has a default; [`SimConfig::default`] plays an OpenID provider, Procore and Microsoft.
//! Unknown fields are refused, and [`SimConfig::validate`] reports all problems at once.

mod behaviour;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::clock::Clock;
use crate::presets;

pub use behaviour::{
    ApiShape, ClientAuth, CollectionKind, ExpiresIn, IdTokenAlg, Pkce, RateHeaders, RateLimit,
    RefreshTokens, Replay, Revocation, Rotation, TokenShape,
};

/// A whole simulator.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimConfig {
    /// Where callers reach the simulator, if not at the listener's own address: an origin without a path.
    pub public_url: Option<String>,
    /// The providers that are played, each under its own path.
    pub providers: Vec<ProviderConfig>,
    /// The companies whose projects the Procore-shaped API lists.
    pub companies: Vec<CompanyConfig>,
    /// The people who can log in; the first one is who automatic consent logs in.
    pub users: Vec<UserConfig>,
    /// Records in each collection (a company's projects, a mailbox's messages), spread over the year up to the start.
    pub records: u32,
    /// Another number of records for the collections of one kind.
    pub records_of: BTreeMap<CollectionKind, u32>,
    /// What seeded records and fault dice depend on.
    pub seed: u64,
    /// Where grants, tokens, keys and changes to records are kept over a restart; absent, they are forgotten.
    pub state_file: Option<PathBuf>,
    /// The simulator's time.
    #[serde(skip)]
    pub clock: Clock,
}

/// One provider: an OAuth server and the APIs its tokens open.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are a provider's independent habits, not states"
)]
pub struct ProviderConfig {
    /// Its name in the control API: lower-case letters, digits and `-`.
    pub slug: String,
    /// Its path on the simulator, `/procore` say; empty for the one at the root. The issuer is the base URL and this.
    pub path: String,
    /// What the consent page calls it.
    pub display_name: String,
    /// The APIs it has beside `/me` and `/userinfo`.
    pub apis: BTreeSet<ApiShape>,
    /// Whether it is an OpenID provider: discovery, `/userinfo`, and an id_token where `openid` was asked for.
    pub openid: bool,
    /// How id_tokens are signed.
    pub id_token_alg: IdTokenAlg,
    /// The fields of a token response.
    pub token_shape: TokenShape,
    /// Who may ask for tokens.
    pub clients: Vec<ClientConfig>,
    /// The scopes it knows; empty means that it has none and ignores what is asked for.
    pub scopes: Vec<String>,
    /// What is granted if no scope is asked for.
    pub default_scopes: Vec<String>,
    /// Whether PKCE is demanded.
    pub pkce: Pkce,
    /// Redirects back at once, without showing a page.
    pub auto_consent: bool,
    /// Offers a tick box for each scope, so that less may be granted than was asked for.
    pub granular_consent: bool,
    /// Refuses authorization requests that were not pushed (RFC 9126, section 5).
    pub require_pushed_requests: bool,
    /// How long a device waits between two polls (RFC 8628, section 3.2).
    pub device_interval_seconds: u32,
    /// Sends `iss` with the authorization response and says so in the metadata (RFC 9207).
    pub iss_in_response: bool,
    /// How long an authorization code can be exchanged.
    pub code_lifetime_seconds: u32,
    /// How long an access token is good.
    pub access_lifetime_seconds: u32,
    /// How the token response tells the lifetime.
    pub expires_in: ExpiresIn,
    /// When a refresh token is issued.
    pub refresh_tokens: RefreshTokens,
    /// What using a refresh token does to it.
    pub rotation: Rotation,
    /// How long a refresh token is good; absent, for ever.
    pub refresh_lifetime_seconds: Option<u32>,
    /// Whether each use starts the refresh token's lifetime anew; otherwise it counts from the consent.
    pub refresh_lifetime_slides: bool,
    /// What revocation kills.
    pub revocation: Revocation,
    /// A limit on API calls per grant, told in the headers of every answer.
    pub rate_limit: Option<RateLimit>,
}

/// An OAuth client.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientConfig {
    /// The client's id.
    pub client_id: String,
    /// Its secrets: any of them is accepted, so that a rotation can be played. None for a public client.
    pub client_secrets: Vec<String>,
    /// How it may identify itself at the token and revocation endpoints.
    pub auth_methods: BTreeSet<ClientAuth>,
    /// Where users may be sent back to, compared as strings.
    pub redirect_uris: Vec<String>,
    /// The user it acts as with the client credentials grant; absent, it has no such grant.
    pub service_user: Option<String>,
    /// The PEM public key of its assertions, RSA or P-256.
    pub public_key: Option<String>,
    /// As a GitHub App: whose account each installation is in, by its id.
    pub installations: BTreeMap<String, String>,
}

/// A person with accounts at every provider.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserConfig {
    /// What the login form and the control API call them.
    pub key: String,
    /// The numeric id, larger than 32 bits as some providers' are.
    pub id: u64,
    /// The id in directories that use GUIDs.
    pub guid: String,
    /// E-mail address and login.
    pub email: String,
    /// Full name.
    pub name: String,
    /// Ids of the companies they belong to.
    #[serde(default)]
    pub companies: Vec<u64>,
}

/// A company, as Procore has them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompanyConfig {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Whether it is in use.
    #[serde(default = "yes")]
    pub active: bool,
}

fn yes() -> bool {
    true
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            public_url: None,
            providers: presets::providers(),
            companies: presets::companies(),
            users: presets::users(),
            records: 200,
            records_of: BTreeMap::new(),
            seed: 1,
            state_file: None,
            clock: Clock::system(),
        }
    }
}

impl Default for ProviderConfig {
    fn default() -> Self {
        Self {
            slug: String::new(),
            path: String::new(),
            display_name: "Simulated Provider".to_owned(),
            apis: BTreeSet::new(),
            openid: false,
            id_token_alg: IdTokenAlg::default(),
            token_shape: TokenShape::default(),
            clients: Vec::new(),
            scopes: Vec::new(),
            default_scopes: Vec::new(),
            pkce: Pkce::default(),
            auto_consent: false,
            granular_consent: false,
            require_pushed_requests: false,
            device_interval_seconds: 5,
            iss_in_response: true,
            code_lifetime_seconds: 60,
            access_lifetime_seconds: 3600,
            expires_in: ExpiresIn::default(),
            refresh_tokens: RefreshTokens::default(),
            rotation: Rotation::Strict,
            refresh_lifetime_seconds: None,
            refresh_lifetime_slides: true,
            revocation: Revocation::default(),
            rate_limit: None,
        }
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            client_id: String::new(),
            client_secrets: Vec::new(),
            auth_methods: BTreeSet::from([
                ClientAuth::ClientSecretBasic,
                ClientAuth::ClientSecretPost,
            ]),
            redirect_uris: Vec::new(),
            service_user: None,
            public_key: None,
            installations: BTreeMap::new(),
        }
    }
}

impl ClientConfig {
    /// A confidential client with one secret.
    pub fn confidential(client_id: &str, secret: &str, redirect_uris: &[&str]) -> Self {
        Self {
            client_id: client_id.to_owned(),
            client_secrets: vec![secret.to_owned()],
            redirect_uris: redirect_uris.iter().map(ToString::to_string).collect(),
            ..Self::default()
        }
    }

    /// A client without a secret.
    pub fn public(client_id: &str, redirect_uris: &[&str]) -> Self {
        Self {
            client_id: client_id.to_owned(),
            auth_methods: BTreeSet::from([ClientAuth::None]),
            redirect_uris: redirect_uris.iter().map(ToString::to_string).collect(),
            ..Self::default()
        }
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let id = &self.client_id;
        if id.is_empty() {
            problems.push("a client has no client_id".to_owned());
        }
        if self.auth_methods.is_empty() {
            problems.push(format!(
                "client {id}: auth_methods is empty; name at least one"
            ));
        }
        let needs_secret = self.auth_methods.iter().any(|method| {
            matches!(
                method,
                ClientAuth::ClientSecretBasic | ClientAuth::ClientSecretPost
            )
        }) || self.auth_methods.len() > 1;
        if self.client_secrets.is_empty() && needs_secret {
            problems.push(format!(
                "client {id}: client_secrets is empty; give one, or allow auth method none alone"
            ));
        }
        for uri in &self.redirect_uris {
            match Url::parse(uri) {
                Ok(parsed) if parsed.fragment().is_none() => {}
                _ => problems.push(format!(
                    "client {id}: redirect URI {uri:?} is not an absolute URI without a fragment"
                )),
            }
        }
        problems
    }
}

impl SimConfig {
    /// The provider of that slug, to change it.
    pub fn provider_mut(&mut self, slug: &str) -> Option<&mut ProviderConfig> {
        self.providers
            .iter_mut()
            .find(|provider| provider.slug == slug)
    }

    /// Everything that is wrong, a sentence each.
    pub fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut slugs = BTreeSet::new();
        let mut paths = BTreeSet::new();
        for provider in &self.providers {
            let slug = &provider.slug;
            if !is_slug(slug) {
                problems.push(format!(
                    "provider slug {slug:?} is not lower-case letters, digits and '-'"
                ));
            }
            if !slugs.insert(slug) {
                problems.push(format!("two providers have the slug {slug:?}"));
            }
            if !provider.path.is_empty() && !provider.path.strip_prefix('/').is_some_and(is_slug) {
                problems.push(format!(
                    "provider {slug}: path {:?} is neither empty nor one segment like \"/procore\"",
                    provider.path
                ));
            }
            if !paths.insert(&provider.path) {
                problems.push(format!("two providers have the path {:?}", provider.path));
            }
            problems.extend(provider.problems(&self.users));
        }
        if self.users.is_empty() {
            problems.push("there are no users; somebody has to be able to log in".to_owned());
        }
        if let Some(url) = &self.public_url {
            let origin = Url::parse(url).is_ok_and(|url| {
                url.host().is_some() && url.path() == "/" && url.query().is_none()
            });
            if !origin || url.ends_with('/') {
                problems.push(format!(
                    "public_url {url:?} is not an origin like \"http://127.0.0.1:8090\""
                ));
            }
        }
        problems
    }
}

impl ProviderConfig {
    pub(crate) fn problems(&self, users: &[UserConfig]) -> Vec<String> {
        let mut problems = Vec::new();
        let slug = &self.slug;
        let mut ids = BTreeSet::new();
        for client in &self.clients {
            problems.extend(
                client
                    .problems()
                    .into_iter()
                    .map(|problem| format!("provider {slug}: {problem}")),
            );
            if !ids.insert(&client.client_id) {
                problems.push(format!(
                    "provider {slug}: two clients have the id {:?}",
                    client.client_id
                ));
            }
            if let Some(user) = &client.service_user
                && !users.iter().any(|known| known.key == *user)
            {
                problems.push(format!(
                    "provider {slug}: client {}: there is no user {user:?}",
                    client.client_id
                ));
            }
        }
        if self
            .rate_limit
            .is_some_and(|limit| limit.window_seconds == 0 || limit.calls == 0)
        {
            problems.push(format!(
                "provider {slug}: rate_limit needs at least one call and one second"
            ));
        }
        problems
    }

    pub(crate) fn client(&self, client_id: &str) -> Option<&ClientConfig> {
        self.clients
            .iter()
            .find(|client| client.client_id == client_id)
    }
}

fn is_slug(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_survives_being_written_and_read() {
        let config = SimConfig::default();
        assert_eq!(config.validate(), Vec::<String>::new());
        let text = toml::to_string(&config).expect("the default can be written");
        let read: SimConfig = toml::from_str(&text).expect("and read");
        assert_eq!(read.validate(), Vec::<String>::new());
        assert_eq!(read.providers.len(), config.providers.len());
    }

    #[test]
    fn every_problem_is_reported() {
        let mut config = SimConfig {
            public_url: Some("http://127.0.0.1:1/path".to_owned()),
            ..SimConfig::default()
        };
        config.providers[0].slug = "Not A Slug".to_owned();
        config.providers[1].path = "/a/b".to_owned();
        config.providers[2].clients = vec![ClientConfig::confidential("c", "s", &["/relative"])];
        let problems = config.validate();
        assert_eq!(problems.len(), 4, "{problems:#?}");
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let error = toml::from_str::<SimConfig>("recrods = 5")
            .expect_err("a typing error must not be swallowed");
        assert!(error.to_string().contains("recrods"), "{error}");
    }
}
