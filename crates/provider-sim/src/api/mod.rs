//! The APIs that tokens open.

pub(crate) mod graph;
pub(crate) mod plain;
pub(crate) mod procore;

use http::HeaderMap;

use crate::config::UserConfig;
use crate::oauth::grants::Bearer;
use crate::observe::bearer_token;
use crate::world::Site;

/// Who calls an API.
pub(crate) struct ApiCaller {
    pub(crate) bearer: Bearer,
    pub(crate) user: UserConfig,
}

impl ApiCaller {
    /// The owner of a good access token in the `Authorization` header.
    pub(crate) fn of(site: &Site, headers: &HeaderMap) -> Option<Self> {
        let token = bearer_token(headers)?;
        let now = site.world.clock.now_ms();
        let bearer = site.world.grants().bearer(&site.slug, token, now)?;
        let user = site.world.user(&bearer.user)?.clone();
        Some(Self { bearer, user })
    }

    /// Whether one of `scopes` was granted, with or without a resource before it.
    pub(crate) fn may(&self, scopes: &[&str]) -> bool {
        self.bearer.scope.iter().any(|granted| {
            let name = granted
                .rsplit_once('/')
                .map_or(granted.as_str(), |(_, name)| name);
            scopes.contains(&name)
        })
    }
}
