//! A link with which one user connects one integration, once.

use common::identity::Caller;
use common::pg::request_ids::{self, Call};
use common::pg::{Scope, audit};
use common::validate::Fields;
use common::{Problem, Reason, TenantKey};
use contracts::broker::v1::{AuthMode, CreateConnectSessionRequest, CreateConnectSessionResponse};
use contracts::directory::v1::{Tenant, TenantState};
use url::Url;

use crate::api::encode;
use crate::broker::Broker;
use crate::error::Error;
use crate::integration::{Integration, web_origin};
use crate::link_token;
use crate::session::Session;
use crate::store::connections::connection_get;
use crate::store::sessions::session_insert;

const METHOD: &str = "ConnectService/CreateConnectSession";

impl Broker {
    /// Makes the session and its link. A repeated call gets the session, and a link without its token: that cannot be had again.
    pub(crate) async fn create_session(
        &self,
        caller: &Caller,
        mut session: Session,
        request: CreateConnectSessionRequest,
    ) -> Result<CreateConnectSessionResponse, Error> {
        let tenant = session.tenant;
        let known = self.active_tenant(tenant).await?;
        let integrations = self.offered(&session).await?;
        check(&session, &known, &integrations)?;
        self.check_reconnect(caller, &mut session).await?;
        if let [only] = integrations.as_slice() {
            session.integration = Some((only.tenant, only.integration_id.clone()));
        }
        if session.user_email.is_empty() {
            session.user_email = self.directory.email(tenant, &session.user_id).await?;
        }
        let token = link_token::fresh(tenant, &self.deps);
        session.token_hash = link_token::hash(token.expose());
        let connect_url = format!("{}/connect/{}", self.public_url, token.expose());
        let (actor, now) = (caller.actor().clone(), self.deps.now());
        let user_id = session.user_id.clone();
        let answer = self
            .db
            .run_tx("session_create", Scope::Tenant(tenant), async move |tx| {
                let call = Call {
                    tenant,
                    method: METHOD,
                    request_id: &request.request_id,
                    body: &request,
                };
                let work = async || -> Result<_, Error> {
                    session_insert(tx, &session).await?;
                    let resource = format!("connect-sessions/{}", session.session_id);
                    audit::append(tx, tenant, &actor, METHOD, &resource, "").await?;
                    let session = Some(encode::session(&session, now));
                    Ok(CreateConnectSessionResponse {
                        session,
                        connect_url: connect_url.clone(),
                    })
                };
                let without = |answer| CreateConnectSessionResponse {
                    connect_url: String::new(),
                    ..answer
                };
                request_ids::run_without(tx, call, work, without).await
            })
            .await?;
        let made = answer.session.as_ref();
        tracing::info!(
            event = "connect_session_created",
            tenant.id = %tenant,
            user.id = user_id,
            session.id = made.map(|made| made.session_id.as_str()),
            integration.id = made.map(|made| made.integration_id.as_str()),
            "a connect session was made"
        );
        Ok(answer)
    }

    /// The tenant, which has to be one for which something new may be connected.
    pub(crate) async fn active_tenant(&self, tenant: TenantKey) -> Result<Tenant, Error> {
        let known = self
            .directory
            .tenant(tenant)
            .await?
            .ok_or(Error::NotFound("tenant"))?;
        if known.state() == TenantState::Active {
            return Ok(known);
        }
        let message = "the tenant is not active; nothing new is connected for it";
        Err(Problem::failed_precondition(Reason::SubscriptionInactive, message).into())
    }

    /// The integrations among which the user chooses.
    async fn offered(&self, session: &Session) -> Result<Vec<Integration>, Error> {
        let mut integrations = Vec::new();
        for id in &session.allowed_integration_ids {
            integrations.push(self.integration(session.tenant, id).await?);
        }
        Ok(integrations)
    }

    /// The connection to be renewed has to be this user's, or nobody's.
    async fn check_reconnect(&self, caller: &Caller, session: &mut Session) -> Result<(), Error> {
        let Some(connection_id) = session.reconnect_connection_id else {
            return Ok(());
        };
        let found = connection_get(&self.db, session.tenant, connection_id).await?;
        let found = found.ok_or(Error::NotFound("connection"))?;
        let is_theirs = found.user_id.is_empty() || found.user_id == session.user_id;
        if !is_theirs || caller.user(&session.user_id).is_err() {
            return Err(Error::NotFound("connection"));
        }
        let named = session
            .allowed_integration_ids
            .iter()
            .all(|id| *id == found.integration_id);
        if named {
            session.integration = Some((found.integration_tenant, found.integration_id));
            return Ok(());
        }
        let what = "must be a connection of the integration that is named";
        Err(Problem::invalid_field("reconnect_connection_id", what).into())
    }
}

/// What the session asks for has to be allowed by its tenant and its integrations.
fn check(session: &Session, tenant: &Tenant, integrations: &[Integration]) -> Result<(), Error> {
    let mut fields = Fields::new();
    let single = integrations.len() == 1;
    let field = if single {
        "integration_id"
    } else {
        "allowed_integration_ids"
    };
    for integration in integrations {
        fields.check(
            integration.auth_mode == AuthMode::Oauth2Code,
            field,
            format_args!(
                "`{}` has no authorization in a browser; connect it with ImportConnection",
                integration.integration_id
            ),
        );
        if single
            && let Err(problems) = integration
                .resolve()?
                .parameters(&session.connection_parameters)
        {
            for problem in problems {
                fields.violate(problem.field, problem.description);
            }
        }
    }
    for (field, text) in [
        ("return_url", &session.return_url),
        ("opener_origin", &session.opener_origin),
    ] {
        let origin = Url::parse(text).ok().and_then(|url| web_origin(&url));
        let allowed = origin.is_some_and(|origin| {
            let by_all = |integration: &Integration| integration.allowed_origins.contains(&origin);
            tenant.allowed_origins.contains(&origin) || integrations.iter().all(by_all)
        });
        fields.check(
            text.is_empty() || allowed,
            field,
            "its origin must be among the allowed_origins of the integration or the tenant",
        );
    }
    fields.finish()?;
    Ok(())
}
