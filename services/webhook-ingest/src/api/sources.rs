//! `WebhookSourceService`.

use std::collections::HashMap;
use std::time::Duration;

use common::identity::{Acting, Caller};
use common::rpc::{caller, unimplemented};
use common::validate::{Fields, page_size};
use common::{Problem, Secret, TenantKey};
use contracts::ingest::v1::webhook_source_service_server::WebhookSourceService;
use contracts::ingest::v1::{
    CreateSourceRequest, CreateSourceResponse, DeleteSourceRequest, DeleteSourceResponse,
    GetSourceRequest, GetSourceResponse, ListGapsRequest, ListGapsResponse, ListSchemesRequest,
    ListSchemesResponse, ListSourcesRequest, ListSourcesResponse, ListSubscriptionsRequest,
    ListSubscriptionsResponse, RotateSourceSecretRequest, RotateSourceSecretResponse, Source,
    UpdateSourceRequest, UpdateSourceResponse,
};
use serde_json::Value;
use tonic::{Request, Response, Status};
use webhook_signatures::scheme::Confidence;
use webhook_signatures::{Scheme, schemes};

use crate::app::Ingest;
use crate::error::Error;
use crate::manage_sources::{
    Changes, NewSource, create_source, delete_source, describe, get_source, rotate_source_secret,
    update_source,
};
use crate::page_token::Query;
use crate::store::sources::source_list;
use crate::{encode, json};

const LONGEST_ID: usize = 100;
const MOST_TRIGGERS: usize = 200;
const LONGEST_NAME: usize = 200;
const LONGEST_SECRET: usize = 8 * 1024;
const LONGEST_OVERLAP: Duration = Duration::from_hours(24 * 30);

pub(super) struct Sources(pub(super) Ingest);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl WebhookSourceService for Sources {
    async fn create_source(
        &self,
        request: Request<CreateSourceRequest>,
    ) -> Answer<CreateSourceResponse> {
        let caller = caller(&request)?;
        let mut request = request.into_inner();
        let secret = Secret::new(std::mem::take(&mut request.secret));
        let new = new_source(&caller, request.source.as_ref(), secret)?;
        let created = create_source(&self.0, &caller, new, request).await;
        Ok(Response::new(created.map_err(Problem::from)?))
    }

    async fn get_source(&self, request: Request<GetSourceRequest>) -> Answer<GetSourceResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let tenant = named(&caller, &request.tenant_id, &request.source_id)?;
        let source = get_source(&self.0, tenant, &request.source_id).await;
        let source = Some(source.map_err(Problem::from)?);
        Ok(Response::new(GetSourceResponse { source }))
    }

    async fn list_sources(
        &self,
        request: Request<ListSourcesRequest>,
    ) -> Answer<ListSourcesResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let size = page_size(&mut fields, request.page_size);
        let query = Query::new("ListSources", &[&request.tenant_id]);
        let after = fields.value("page_token", query.text_key(&request.page_token));
        fields.finish()?;
        let (Some(tenant), Some(after)) = (tenant, after) else {
            return Err(Problem::not_found("tenant").into());
        };
        let after = after.unwrap_or_default();
        let found = source_list(&self.0.database, tenant, &after, size + 1).await;
        let found = found.map_err(Problem::from)?;
        let page = &found[..found.len().min(size as usize)];
        let next = page.last().filter(|_| found.len() > page.len());
        let mut sources = Vec::with_capacity(page.len());
        for source in page {
            sources.push(describe(&self.0, source).await.map_err(Problem::from)?);
        }
        Ok(Response::new(ListSourcesResponse {
            sources,
            next_page_token: next
                .map(|last| query.token(last.source_id.as_bytes()))
                .unwrap_or_default(),
        }))
    }

    async fn update_source(
        &self,
        request: Request<UpdateSourceRequest>,
    ) -> Answer<UpdateSourceResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let source = request.source.unwrap_or_default();
        let paths = request.update_mask.unwrap_or_default().paths;
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant_in("source.tenant_id", &source.tenant_id))?;
        fields.require("source.source_id", &source.source_id);
        let changes = changes(&mut fields, &source, &paths);
        fields.finish()?;
        let tenant = tenant.ok_or_else(|| Problem::not_found("source"))?;
        may_change(&caller, tenant)?;
        let updated = update_source(&self.0, &caller, tenant, source.source_id, changes).await;
        let source = Some(updated.map_err(Problem::from)?);
        Ok(Response::new(UpdateSourceResponse { source }))
    }

    async fn rotate_source_secret(
        &self,
        request: Request<RotateSourceSecretRequest>,
    ) -> Answer<RotateSourceSecretResponse> {
        let caller = caller(&request)?;
        let mut request = request.into_inner();
        let secret = Secret::new(std::mem::take(&mut request.new_secret));
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        fields.require("source_id", &request.source_id);
        check_secret(&mut fields, "new_secret", &secret);
        let overlap = request.overlap.map_or(Some(Duration::ZERO), |span| {
            let span = Duration::try_from(span).ok();
            span.filter(|span| *span <= LONGEST_OVERLAP)
        });
        fields.check(overlap.is_some(), "overlap", "must be 0 s to 30 days");
        fields.finish()?;
        let (Some(tenant), Some(overlap)) = (tenant, overlap) else {
            return Err(Problem::not_found("source").into());
        };
        may_change(&caller, tenant)?;
        rotate_source_secret(&self.0, &caller, tenant, request.source_id, secret, overlap)
            .await
            .map_err(Problem::from)?;
        Ok(Response::new(RotateSourceSecretResponse {}))
    }

    async fn delete_source(
        &self,
        request: Request<DeleteSourceRequest>,
    ) -> Answer<DeleteSourceResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let tenant = named(&caller, &request.tenant_id, &request.source_id)?;
        may_change(&caller, tenant)?;
        delete_source(&self.0, &caller, tenant, request.source_id)
            .await
            .map_err(Problem::from)?;
        Ok(Response::new(DeleteSourceResponse {}))
    }

    async fn list_schemes(
        &self,
        request: Request<ListSchemesRequest>,
    ) -> Answer<ListSchemesResponse> {
        caller(&request)?;
        let search = request.into_inner().search.to_lowercase();
        let fits = |scheme: &&Scheme| {
            scheme.key.contains(&search) || scheme.display_name.to_lowercase().contains(&search)
        };
        let schemes = schemes().iter().filter(fits).map(encode::scheme).collect();
        Ok(Response::new(ListSchemesResponse { schemes }))
    }

    async fn list_subscriptions(
        &self,
        _: Request<ListSubscriptionsRequest>,
    ) -> Answer<ListSubscriptionsResponse> {
        Err(unimplemented("WebhookSourceService/ListSubscriptions"))
    }

    async fn list_gaps(&self, _: Request<ListGapsRequest>) -> Answer<ListGapsResponse> {
        Err(unimplemented("WebhookSourceService/ListGaps"))
    }
}

fn named(caller: &Caller, tenant_id: &str, source_id: &str) -> Result<TenantKey, Problem> {
    let mut fields = Fields::new();
    let tenant = fields.absorb(caller.tenant(tenant_id))?;
    fields.require("source_id", source_id);
    fields.finish()?;
    tenant.ok_or_else(|| Problem::from(Error::NotFound("source")))
}

/// What is the platform's is changed by whoever runs it; an administrator's own is the tenant's.
fn may_change(caller: &Caller, tenant: TenantKey) -> Result<(), Problem> {
    if tenant.is_platform() && caller.acting < Acting::Service {
        Err(Problem::permission_denied(
            "the platform's sources are changed by its operators alone",
        ))
    } else if caller.acting == Acting::Own {
        Err(Problem::permission_denied(
            "only an administrator of the tenant changes its sources",
        ))
    } else {
        Ok(())
    }
}

fn new_source(
    caller: &Caller,
    source: Option<&Source>,
    secret: Secret<String>,
) -> Result<NewSource, Problem> {
    let mut fields = Fields::new();
    let empty = Source::default();
    fields.check(source.is_some(), "source", "is required");
    let source = source.unwrap_or(&empty);
    let tenant = fields.absorb(caller.tenant_in("source.tenant_id", &source.tenant_id))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    fields.check(
        source.source_id.len() <= LONGEST_ID && source.source_id.bytes().all(plain),
        "source.source_id",
        format_args!("must be at most {LONGEST_ID} letters, digits, `-`, `_` and `.`, or empty"),
    );
    check_text(&mut fields, "source.integration_id", &source.integration_id);
    refuse_unbuilt(&mut fields, source);
    let scheme = Scheme::find(&source.scheme);
    fields.check(
        scheme.is_some(),
        "source.scheme",
        "must be the key of a scheme that ListSchemes has",
    );
    let scheme_options = options(source);
    if let Some(scheme) = scheme {
        fields.check(
            scheme.confidence != Confidence::Unverified || source.accept_unverified,
            "source.accept_unverified",
            "must be set for this scheme: nobody has seen yet that it is what the provider does",
        );
        fields.value(
            "source.scheme_options",
            encode::scheme_options(scheme, scheme_options.clone()),
        );
        if check_secret(&mut fields, "secret", &secret) {
            fields.value("secret", scheme.check_secret(secret.expose().as_bytes()));
        }
    }
    check_triggers(&mut fields, &source.trigger_streams);
    fields.finish()?;
    let (Some(tenant), Some(scheme)) = (tenant, scheme) else {
        return Err(Problem::not_found("tenant"));
    };
    may_change(caller, tenant)?;
    Ok(NewSource {
        tenant,
        source_id: source.source_id.clone(),
        integration_id: source.integration_id.clone(),
        scheme,
        scheme_options,
        trigger_streams: source.trigger_streams.clone().into_iter().collect(),
        sealed_bodies: source.sealed_bodies,
        accept_unverified: source.accept_unverified,
        secret,
    })
}

fn changes(fields: &mut Fields, source: &Source, paths: &[String]) -> Changes {
    let mut changes = Changes::default();
    fields.check(
        !paths.is_empty(),
        "update_mask",
        "must name what is to change",
    );
    for path in paths {
        match path.as_str() {
            "integration_id" => {
                check_text(fields, "source.integration_id", &source.integration_id);
                changes.integration_id = Some(source.integration_id.clone());
            }
            "scheme_options" => changes.scheme_options = Some(options(source)),
            "trigger_streams" => {
                check_triggers(fields, &source.trigger_streams);
                changes.trigger_streams =
                    Some(source.trigger_streams.clone().into_iter().collect());
            }
            "sealed_bodies" => changes.sealed_bodies = Some(source.sealed_bodies),
            "ordered" | "rate_limit" | "migration_source_id" | "use_client_secret" => {
                refuse_unbuilt(fields, source);
            }
            other => fields.violate(
                "update_mask",
                format_args!("`{other}` cannot be changed; make a new source"),
            ),
        }
    }
    changes
}

/// What is not built yet is refused, so that nobody relies on it.
fn refuse_unbuilt(fields: &mut Fields, source: &Source) {
    let unbuilt = [
        ("source.ordered", source.ordered),
        ("source.rate_limit", source.rate_limit != 0),
        (
            "source.migration_source_id",
            !source.migration_source_id.is_empty(),
        ),
        ("source.use_client_secret", source.use_client_secret),
    ];
    for (field, set) in unbuilt {
        fields.check(
            !set,
            field,
            "is not available in this version; leave it out",
        );
    }
}

fn options(source: &Source) -> Value {
    let options = source.scheme_options.as_ref();
    options.map_or(Value::Null, json::of_struct)
}

fn check_secret(fields: &mut Fields, field: &str, secret: &Secret<String>) -> bool {
    fields.require(field, secret.expose()) && fields.at_most(field, secret.expose(), LONGEST_SECRET)
}

fn check_text(fields: &mut Fields, field: &str, text: &str) {
    fields.at_most(field, text, LONGEST_NAME);
}

fn check_triggers(fields: &mut Fields, triggers: &HashMap<String, String>) {
    fields.check(
        triggers.len() <= MOST_TRIGGERS
            && triggers.iter().all(|(event_type, streams)| {
                !event_type.is_empty() && event_type.len() <= LONGEST_NAME && streams.len() <= 1000
            }),
        "source.trigger_streams",
        format_args!("must have at most {MOST_TRIGGERS} event types of at most {LONGEST_NAME} bytes, or \"*\", each with its streams"),
    );
}
