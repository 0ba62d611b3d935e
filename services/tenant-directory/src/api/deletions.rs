//! Deletions, and the reports of those who carry them out.

use common::Problem;
use common::identity::Caller;
use common::validate::{Fields, page_size};
use contracts::directory::v1 as contract;

use super::decode;
use crate::deletion::{Report, Step};
use crate::directory::Directory;
use crate::page_token::Query;
use crate::{access, encode};

const LONGEST_DETAIL: usize = 500;

pub(super) async fn list(
    directory: &Directory,
    caller: &Caller,
    request: contract::ListDeletionsRequest,
) -> Result<contract::ListDeletionsResponse, Problem> {
    let mut fields = Fields::new();
    let tenant = fields
        .absorb(caller.tenant_or_all(&request.tenant_id))?
        .flatten();
    let size = page_size(&mut fields, request.page_size);
    let query = Query::new("ListDeletions", &[&request.tenant_id]);
    let after = decode::after_id(&mut fields, &query, &request.page_token);
    fields.finish()?;
    let page = directory
        .list_deletions(caller, tenant, after, size)
        .await?;
    let next_page_token = match page.items.last() {
        Some(last) if page.more => query.token(&[&last.id.to_string()]),
        _ => String::new(),
    };
    Ok(contract::ListDeletionsResponse {
        deletions: page.items.iter().map(encode::deletion).collect(),
        next_page_token,
    })
}

pub(super) async fn report(
    directory: &Directory,
    caller: &Caller,
    request: contract::ReportDeletionRequest,
) -> Result<contract::ReportDeletionResponse, Problem> {
    let service = access::reporter(caller, &request.service)?;
    let mut fields = Fields::new();
    let tenant = fields.tenant("tenant_id", &request.tenant_id);
    let id = fields.id("deletion_id", &request.deletion_id);
    fields.require("service", &service);
    let step = i16::try_from(request.step)
        .ok()
        .and_then(Step::from_number)
        .filter(|step| *step != Step::Done);
    fields.check(
        step.is_some(),
        "step",
        "must be the step that the report is about",
    );
    let detail = decode::text(&mut fields, "detail", &request.detail, LONGEST_DETAIL);
    fields.finish()?;
    let tenant = decode::reached(caller, tenant)?;
    let (Some(id), Some(step), Some(detail)) = (id, step, detail) else {
        unreachable!("each is there, or a violation was found")
    };
    let report = Report {
        service,
        step,
        done: request.done,
        detail,
    };
    let deletion = directory
        .report_deletion(caller, tenant, id, report)
        .await?;
    Ok(contract::ReportDeletionResponse {
        deletion: Some(encode::deletion(&deletion)),
    })
}
