//! Puts a simulator together and runs it on a listener.

use std::sync::Arc;

use axum::routing::{MethodRouter, get, post};
use axum::{Router, middleware};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{graph, plain, procore};
use crate::config::{ApiShape, ProviderConfig, Revocation, SimConfig};
use crate::control::Control;
use crate::oauth::keys::{KeyError, Keys};
use crate::oauth::{authorize, device, device_page, metadata, par, revoke, token, trades};
use crate::observe::{Endpoint, observe};
use crate::persist::{StateError, StateFile};
use crate::world::{Site, World};
use crate::{control_api, server};

/// A running simulator. Dropping it stops it.
#[derive(Debug)]
pub struct Simulator {
    control: Control,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Why a simulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error("the configuration is wrong: {}", problems.join("; "))]
    Config {
        /// Every problem, a sentence each.
        problems: Vec<String>,
    },
    /// The listener has no address.
    #[error("the listener's address is not known")]
    Listener(#[source] std::io::Error),
    /// The signing keys failed.
    #[error("the signing keys could not be set up")]
    Keys(#[from] KeyError),
    /// The state file failed.
    #[error("the kept state could not be used")]
    State(#[from] StateError),
}

impl Simulator {
    /// Serves `config` on `listener`. When this returns, requests are answered.
    pub async fn start(config: SimConfig, listener: TcpListener) -> Result<Self, StartError> {
        let problems = config.validate();
        if !problems.is_empty() {
            return Err(StartError::Config { problems });
        }
        let base_url = match &config.public_url {
            Some(url) => url.clone(),
            None => format!(
                "http://{}",
                listener.local_addr().map_err(StartError::Listener)?
            ),
        };
        let state_file = config.state_file.clone().map(StateFile::new);
        let saved = state_file
            .as_ref()
            .map(StateFile::load)
            .transpose()?
            .flatten();
        let keys = match &saved {
            Some(saved) => Keys::restore(saved.keys.clone())?,
            // An RSA key takes a moment.
            None => tokio::task::spawn_blocking(Keys::generate)
                .await
                .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?,
        };
        let world = Arc::new(World::new(config, base_url, keys, state_file));
        if let Some(saved) = saved {
            world.restore(saved);
        }
        world.keep().await?;
        let stop = CancellationToken::new();
        let control = Control::new(world.clone());
        let task = tokio::spawn(server::serve(
            listener,
            router(&world, &control),
            stop.clone(),
        ));
        tracing::info!(
            event = "simulator_started",
            url = world.base_url,
            "the provider simulator listens at {}",
            world.base_url
        );
        Ok(Self {
            control,
            stop,
            task,
        })
    }

    /// Where it is reached, without a slash at the end.
    pub fn base_url(&self) -> &str {
        self.control.base_url()
    }

    /// Everything that can be asked of it while it runs.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Stops it and closes what is open.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Err(error) = (&mut self.task).await {
            tracing::error!(event = "simulator_failed", %error, "the simulator's accept loop ended badly");
        }
    }

    /// Waits until it ends by itself, which it does only if it fails.
    pub async fn ended(&mut self) {
        // A failure is told by whoever stops or drops the simulator; the loop has no other way to end.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn router(world: &Arc<World>, control: &Control) -> Router {
    let mut router = Router::new().nest("/_sim", control_api::router(control.clone()));
    for provider in world.providers() {
        let site = Site {
            world: world.clone(),
            slug: provider.slug.as_str().into(),
        };
        let endpoints = provider_routes(&site, &provider);
        let metadata = format!("/.well-known/oauth-authorization-server{}", provider.path);
        router = router.merge(route(&site, &metadata, "discovery", get(metadata::oauth)));
        router = if provider.path.is_empty() {
            router.merge(endpoints)
        } else {
            router.nest(&provider.path, endpoints)
        };
    }
    router
}

fn provider_routes(site: &Site, provider: &ProviderConfig) -> Router {
    let mut routes = vec![
        route(
            site,
            "/.well-known/openid-configuration",
            "discovery",
            get(metadata::openid),
        ),
        route(site, "/jwks", "jwks", get(metadata::jwks)),
        route(site, "/oauth/authorize", "authorize", get(authorize::show)),
        route(site, "/oauth/authorize", "consent", post(authorize::decide)),
        route(site, "/oauth/token", "token", post(token::token)),
        route(
            site,
            "/oauth/access_token",
            "token",
            get(trades::by_query).post(token::token),
        ),
        route(site, "/oauth/par", "par", post(par::push)),
        route(
            site,
            "/oauth/device_authorization",
            "device_authorization",
            post(device::start),
        ),
        route(
            site,
            "/device",
            "device",
            get(device_page::show).post(device_page::decide),
        ),
        route(
            site,
            "/app/installations/{installation_id}/access_tokens",
            "installation_token",
            post(trades::installation_token),
        ),
        route(
            site,
            "/userinfo",
            "userinfo",
            get(plain::userinfo).post(plain::userinfo),
        ),
        route(site, "/me", "api.me", get(plain::me)),
    ];
    if provider.revocation != Revocation::Unsupported {
        routes.push(route(site, "/oauth/revoke", "revoke", post(revoke::revoke)));
    }
    if provider.apis.contains(&ApiShape::Procore) {
        routes.push(route(
            site,
            "/rest/v1.0/me",
            "api.procore.me",
            get(procore::me),
        ));
        routes.push(route(
            site,
            "/rest/v1.0/companies",
            "api.procore.companies",
            get(procore::companies),
        ));
        routes.push(route(
            site,
            "/rest/v1.0/projects",
            "api.procore.projects",
            get(procore::projects),
        ));
    }
    if provider.apis.contains(&ApiShape::Graph) {
        let delta = "/v1.0/me/mailFolders/{folder}/messages/delta";
        routes.push(route(site, "/v1.0/me", "api.graph.me", get(graph::me)));
        routes.push(route(
            site,
            "/v1.0/organization",
            "api.graph.organization",
            get(graph::organization),
        ));
        routes.push(route(
            site,
            "/v1.0/me/messages",
            "api.graph.messages",
            get(graph::messages),
        ));
        routes.push(route(site, delta, "api.graph.delta", get(graph::delta)));
    }
    routes.into_iter().fold(Router::new(), Router::merge)
}

fn route(site: &Site, path: &str, name: &'static str, methods: MethodRouter<Site>) -> Router {
    let endpoint = Endpoint {
        site: site.clone(),
        name,
    };
    let methods = methods.route_layer(middleware::from_fn_with_state(endpoint, observe));
    Router::new().route(path, methods).with_state(site.clone())
}
