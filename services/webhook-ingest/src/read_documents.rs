//! Reading the ledger: one document, a list, what a user has brought in.

use common::TenantKey;
use contracts::ingest::v1::{Document as Described, GetUsageResponse};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::app::Ingest;
use crate::encode;
use crate::error::Error;
use crate::store::documents::{DocumentFilter, document_get, document_list};
use crate::store::usage::usage_sum;

/// The tenant's document. The users of a tenant share its documents.
///
/// # Errors
/// [`Error::NotFound`].
pub(crate) async fn get_document(
    ingest: &Ingest,
    tenant: TenantKey,
    document_id: Uuid,
) -> Result<Described, Error> {
    let document = document_get(&ingest.database, tenant, document_id).await?;
    Ok(encode::document(
        &document.ok_or(Error::NotFound("document"))?,
    ))
}

/// A page of the tenant's documents, and the id that the next one begins behind.
///
/// # Errors
/// Where the database is away.
pub(crate) async fn list_documents(
    ingest: &Ingest,
    tenant: TenantKey,
    filter: &DocumentFilter,
    page_size: i64,
) -> Result<(Vec<Described>, Option<Uuid>), Error> {
    let documents = document_list(&ingest.database, tenant, filter, page_size + 1).await?;
    let full = documents.len() as i64 > page_size;
    let page = &documents[..documents.len().min(page_size as usize)];
    // A page that the size of its documents has cut short is not the last one either; one more question finds out.
    let next = match page.last() {
        Some(last) if full || is_large(page) => Some(last.held.document_id),
        _ => None,
    };
    Ok((page.iter().map(encode::document).collect(), next))
}

/// Whether the documents may have been cut off for their size.
fn is_large(page: &[crate::document::Document]) -> bool {
    let bytes: usize = page
        .iter()
        .map(|document| document.held.content.json.len() + document.held.content.title.len() + 700)
        .sum();
    bytes > 2 * 1024 * 1024
}

/// How many documents the user has brought in since that day began, and may in one.
///
/// # Errors
/// Where the database or the directory is away.
pub(crate) async fn get_usage(
    ingest: &Ingest,
    tenant: TenantKey,
    user_id: &str,
    since: Option<OffsetDateTime>,
) -> Result<GetUsageResponse, Error> {
    let since = since.unwrap_or_else(|| ingest.deps.now()).date();
    let quota = ingest.quotas.documents_a_day(tenant).await?;
    Ok(GetUsageResponse {
        documents: usage_sum(&ingest.database, tenant, user_id, since).await?,
        quota: quota.unwrap_or(0),
    })
}
