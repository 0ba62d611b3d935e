//! `DocumentService`.

use std::pin::Pin;

use common::identity::{Acting, Caller};
use common::rpc::{caller, unimplemented};
use common::validate::{Fields, page_size};
use common::{Problem, TenantKey};
use contracts::ingest::v1::document_service_server::DocumentService;
use contracts::ingest::v1::{
    Document, FinishFullPassRequest, FinishFullPassResponse, GetDocumentRequest,
    GetDocumentResponse, GetUsageRequest, GetUsageResponse, IngestionMethod,
    ListDocumentChangesRequest, ListDocumentChangesResponse, ListDocumentsRequest,
    ListDocumentsResponse, RecordDocumentsRequest, RecordDocumentsResponse,
    WatchDocumentChangesRequest, WatchDocumentChangesResponse,
};
use futures::Stream;
use prost::Message as _;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::MOST_BYTES;
use crate::app::Ingest;
use crate::change_feed::list_document_changes;
use crate::document::{Attribution, Content, Incoming, Method, StreamName};
use crate::page_token::Query;
use crate::read_documents::{get_document, get_usage, list_documents};
use crate::record_documents::{Batch, FullPass, finish_full_pass, record_documents};
use crate::store::documents::DocumentFilter;
use crate::store::streams::StreamFilter;
use crate::{canonical_json, encode};

const MOST_DOCUMENTS: usize = 1000;
const LONGEST_CONTENT: usize = 256 * 1024;
const LONGEST_ID: usize = 1000;
const LONGEST_NAME: usize = 200;
const LONGEST_TITLE: usize = 1000;
const LONGEST_URL: usize = 4000;

pub(super) struct Documents(pub(super) Ingest);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl DocumentService for Documents {
    type WatchDocumentChangesStream =
        Pin<Box<dyn Stream<Item = Result<WatchDocumentChangesResponse, Status>> + Send>>;

    async fn record_documents(
        &self,
        request: Request<RecordDocumentsRequest>,
    ) -> Answer<RecordDocumentsResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let stream = check_batch(&caller, &request)?;
        let person = self.person(&caller, &request, stream.tenant).await?;
        let mut batch = Batch {
            stream,
            job_id: request.job_id,
            epoch: request.stream_epoch,
            documents: Vec::with_capacity(request.documents.len()),
            rejected: Vec::new(),
        };
        for document in request.documents {
            let external_id = document.external_id.clone();
            match incoming(document, &batch.stream, person.as_ref()) {
                Ok(incoming) => batch.documents.push(incoming),
                Err(problem) => batch.rejected.push(problem.into_item_error(external_id)),
            }
        }
        let recorded = record_documents(&self.0, &caller, batch).await;
        Ok(Response::new(recorded.map_err(Problem::from)?))
    }

    async fn finish_full_pass(
        &self,
        request: Request<FinishFullPassRequest>,
    ) -> Answer<FinishFullPassResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let connection_id = fields.id("connection_id", &request.connection_id);
        check_stream(&mut fields, &request.external_account_id, &request.stream);
        fields.require("job_id", &request.job_id);
        fields.check(
            request.stream_epoch >= 0,
            "stream_epoch",
            "must not be negative",
        );
        let started_at = request.started_at.ok_or("is required");
        let started_at = fields.value("started_at", started_at.and_then(encode::moment));
        fields.check(
            started_at.is_none_or(|at| at <= self.0.deps.now() + time::Duration::MINUTE),
            "started_at",
            "must not be in the future",
        );
        fields.finish()?;
        let (Some(tenant), Some(connection_id), Some(started_at)) =
            (tenant, connection_id, started_at)
        else {
            return Err(Problem::not_found("stream").into());
        };
        let pass = FullPass {
            stream: StreamName {
                tenant,
                connection_id,
                external_account_id: request.external_account_id,
                stream: request.stream,
            },
            job_id: request.job_id,
            epoch: request.stream_epoch,
            started_at,
        };
        let finished = finish_full_pass(&self.0, &caller, pass).await;
        Ok(Response::new(finished.map_err(Problem::from)?))
    }

    async fn get_document(
        &self,
        request: Request<GetDocumentRequest>,
    ) -> Answer<GetDocumentResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let document_id = fields.id("document_id", &request.document_id);
        fields.finish()?;
        let (Some(tenant), Some(document_id)) = (tenant, document_id) else {
            return Err(Problem::not_found("document").into());
        };
        let document = get_document(&self.0, tenant, document_id).await;
        let document = Some(document.map_err(Problem::from)?);
        Ok(Response::new(GetDocumentResponse { document }))
    }

    async fn list_documents(
        &self,
        request: Request<ListDocumentsRequest>,
    ) -> Answer<ListDocumentsResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let size = page_size(&mut fields, request.page_size);
        let streams = stream_filter(
            &mut fields,
            &request.connection_id,
            request.external_account_id.clone(),
            request.stream.clone(),
        );
        let query = Query::new(
            "ListDocuments",
            &[
                &request.tenant_id,
                &request.connection_id,
                &request.external_account_id,
                &request.stream,
                &request.ingested_by_user_id,
                if request.include_deleted {
                    "deleted"
                } else {
                    ""
                },
            ],
        );
        let after = fields.value("page_token", query.id_key(&request.page_token));
        fields.finish()?;
        let (Some(tenant), Some(after)) = (tenant, after) else {
            return Err(Problem::not_found("tenant").into());
        };
        let filter = DocumentFilter {
            streams,
            user_id: request.ingested_by_user_id,
            include_deleted: request.include_deleted,
            after: after.unwrap_or(Uuid::nil()),
        };
        let listed = list_documents(&self.0, tenant, &filter, size).await;
        let (documents, next) = listed.map_err(Problem::from)?;
        Ok(Response::new(ListDocumentsResponse {
            documents,
            next_page_token: next
                .map(|id| query.token(id.as_bytes()))
                .unwrap_or_default(),
        }))
    }

    async fn list_document_changes(
        &self,
        request: Request<ListDocumentChangesRequest>,
    ) -> Answer<ListDocumentChangesResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        let filter = stream_filter(
            &mut fields,
            &request.connection_id,
            request.external_account_id,
            request.stream,
        );
        fields.check(
            request.max_changes >= 0,
            "max_changes",
            "must not be negative",
        );
        fields.finish()?;
        let tenant = tenant.ok_or_else(|| Problem::not_found("tenant"))?;
        let most = match request.max_changes {
            0 => 100,
            asked => i64::from(asked.min(1000)),
        };
        let changes =
            list_document_changes(&self.0, tenant, &filter, &request.after_cursor, most).await;
        Ok(Response::new(changes.map_err(Problem::from)?))
    }

    async fn watch_document_changes(
        &self,
        _: Request<WatchDocumentChangesRequest>,
    ) -> Answer<Self::WatchDocumentChangesStream> {
        Err(unimplemented("DocumentService/WatchDocumentChanges"))
    }

    async fn get_usage(&self, request: Request<GetUsageRequest>) -> Answer<GetUsageResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
        fields.require("user_id", &request.user_id);
        let since = request.since.map(encode::moment).transpose();
        let since = fields.value("since", since);
        fields.finish()?;
        caller.user(&request.user_id)?;
        let (Some(tenant), Some(since)) = (tenant, since) else {
            return Err(Problem::not_found("user").into());
        };
        let usage = get_usage(&self.0, tenant, &request.user_id, since).await;
        Ok(Response::new(usage.map_err(Problem::from)?))
    }
}

impl Documents {
    /// Where a person is behind the call, it is that person who brings the documents in, whatever they say. Our own
    /// services speak for whoever owns the connection.
    async fn person(
        &self,
        caller: &Caller,
        request: &RecordDocumentsRequest,
        tenant: TenantKey,
    ) -> Result<Option<(String, String)>, Problem> {
        let Some(user) = caller
            .user
            .as_ref()
            .filter(|_| caller.acting < Acting::Service)
        else {
            return Ok(None);
        };
        let said = request.documents.iter().find(|document| {
            document.ingested_by_user_id == user.user_id
                && !document.ingested_by_user_email.is_empty()
        });
        let email = match said {
            Some(document) => document.ingested_by_user_email.clone(),
            None => self.0.clients.email(tenant, &user.user_id).await?,
        };
        Ok(Some((user.user_id.clone(), email)))
    }
}

fn check_batch(caller: &Caller, request: &RecordDocumentsRequest) -> Result<StreamName, Problem> {
    let mut fields = Fields::new();
    let tenant = fields.absorb(caller.tenant(&request.tenant_id))?;
    let connection_id = if request.connection_id.is_empty() {
        fields.check(
            request.external_account_id.is_empty(),
            "external_account_id",
            "must be empty where `connection_id` is",
        );
        Some(Uuid::nil())
    } else {
        fields.id("connection_id", &request.connection_id)
    };
    check_stream(&mut fields, &request.external_account_id, &request.stream);
    fields.at_most("job_id", &request.job_id, LONGEST_NAME);
    fields.check(
        request.stream_epoch >= 0,
        "stream_epoch",
        "must not be negative",
    );
    fields.check(
        (1..=MOST_DOCUMENTS).contains(&request.documents.len()),
        "documents",
        format_args!("must be 1 to {MOST_DOCUMENTS}"),
    );
    fields.check(
        request.encoded_len() <= MOST_BYTES,
        "documents",
        "must have at most 3 MiB together; send fewer at a time",
    );
    fields.finish()?;
    let (Some(tenant), Some(connection_id)) = (tenant, connection_id) else {
        return Err(Problem::not_found("tenant"));
    };
    if !connection_id.is_nil() && !tenant.shares_bucket_with(connection_id) {
        return Err(Problem::not_found("connection"));
    }
    Ok(StreamName {
        tenant,
        connection_id,
        external_account_id: request.external_account_id.clone(),
        stream: request.stream.clone(),
    })
}

fn check_stream(fields: &mut Fields, account: &str, stream: &str) {
    fields.at_most("external_account_id", account, LONGEST_NAME);
    if fields.require("stream", stream) {
        fields.at_most("stream", stream, LONGEST_NAME);
    }
}

fn stream_filter(
    fields: &mut Fields,
    connection_id: &str,
    external_account_id: String,
    stream: String,
) -> StreamFilter {
    StreamFilter {
        connection_id: (!connection_id.is_empty())
            .then(|| fields.id("connection_id", connection_id))
            .flatten(),
        external_account_id,
        stream,
    }
}

/// One document of a batch, or why it is not taken.
fn incoming(
    document: Document,
    stream: &StreamName,
    person: Option<&(String, String)>,
) -> Result<Incoming, Problem> {
    let mut fields = Fields::new();
    if fields.require("external_id", &document.external_id) {
        fields.at_most("external_id", &document.external_id, LONGEST_ID);
    }
    fields.at_most("title", &document.title, LONGEST_TITLE);
    fields.at_most("content_url", &document.content_url, LONGEST_URL);
    fields.at_most(
        "ingested_by_user_id",
        &document.ingested_by_user_id,
        LONGEST_NAME,
    );
    fields.at_most(
        "ingested_by_user_email",
        &document.ingested_by_user_email,
        320,
    );
    // Postgres keeps no NUL in a text.
    let texts = [
        &document.external_id,
        &document.title,
        &document.content_url,
    ];
    fields.check(
        !texts.iter().any(|text| text.contains('\0')),
        "external_id",
        "must not contain NUL; neither must `title` and `content_url`",
    );
    let updated_at = document.source_updated_at.map(encode::moment).transpose();
    let updated_at = fields.value("source_updated_at", updated_at);
    let method = method(&mut fields, &document, stream);
    let content = if document.deleted_at.is_some() {
        None
    } else {
        fields.check(
            document.content_json.len() <= LONGEST_CONTENT,
            "content_json",
            "must have at most 256 KiB",
        );
        fields.value("content_json", canonical_json::hash(&document.content_json))
    };
    fields.finish()?;
    let (user_id, user_email) = match person {
        Some((user_id, email)) => (user_id.clone(), email.clone()),
        None => (
            document.ingested_by_user_id,
            document.ingested_by_user_email,
        ),
    };
    Ok(Incoming {
        external_id: document.external_id,
        content: content.map(|hash| Content {
            title: document.title,
            json: document.content_json,
            hash: hash.to_vec(),
            url: document.content_url,
        }),
        source_updated_at: updated_at.flatten(),
        by: Attribution {
            user_id,
            user_email,
            method,
        },
    })
}

/// With a connection a job or a webhook brings documents in; without one a person or a program.
fn method(fields: &mut Fields, document: &Document, stream: &StreamName) -> Method {
    let connected = !stream.connection_id.is_nil();
    match (document.ingestion_method(), connected) {
        (IngestionMethod::Unspecified | IngestionMethod::OauthSync, true) => Method::OauthSync,
        (IngestionMethod::Webhook, true) => Method::Webhook,
        (IngestionMethod::ManualUpload, false) => Method::ManualUpload,
        (IngestionMethod::Unspecified | IngestionMethod::Api, false) => Method::Api,
        (_, true) => {
            fields.violate(
                "ingestion_method",
                "must be OAUTH_SYNC or WEBHOOK for a connection's documents",
            );
            Method::OauthSync
        }
        (_, false) => {
            fields.violate(
                "ingestion_method",
                "must be MANUAL_UPLOAD or API without a connection",
            );
            Method::Api
        }
    }
}
