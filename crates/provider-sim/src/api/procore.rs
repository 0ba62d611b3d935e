//! An API shaped like Procore's: the user, the companies, and a company's projects.
//!
//! Paging by `page` and `per_page` up to 10 000, with `Total`, `Per-Page` and `Link`:
//! <https://developers.procore.com/documentation/pagination>. A default of 100 is assumed, as is that a page past the end is an empty list.
//! `Procore-Company-Id` is needed by everything but `/me` and `/companies`: <https://developers.procore.com/documentation/mpz-headers>.
//! `filters[updated_at]=FROM...TO` is documented for many lists; that this one has it, and `sort`, is assumed.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::ApiCaller;
use crate::clock::{iso_seconds, parse_iso};
use crate::config::{CollectionKind, CompanyConfig};
use crate::data::{Collection, CollectionName, Record, words};
use crate::fixtures;
use crate::world::Site;

const COMPANY_HEADER: &str = "procore-company-id";
const DEFAULT_PER_PAGE: usize = 100;
const MAX_PER_PAGE: usize = 10_000;

/// The query of a list.
#[derive(Debug)]
struct List {
    page: usize,
    per_page: usize,
    company_id: Option<u64>,
    updated: Option<(i64, i64)>,
    sort: Sort,
    /// Everything but the page, for links.
    rest: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Id,
    Updated,
    UpdatedDescending,
}

/// `GET /rest/v1.0/me`.
pub(crate) async fn me(State(site): State<Site>, headers: HeaderMap) -> Response {
    match ApiCaller::of(&site, &headers) {
        Some(ApiCaller { user, .. }) => {
            let fields = json!({"id": user.id, "login": user.email, "name": user.name});
            Json(fixtures::filled(&fixtures::PROCORE_ME, fields)).into_response()
        }
        None => error(StatusCode::UNAUTHORIZED, "unauthorized"),
    }
}

/// `GET /rest/v1.0/companies`: those the user belongs to.
pub(crate) async fn companies(
    State(site): State<Site>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(caller) = ApiCaller::of(&site, &headers) else {
        return error(StatusCode::UNAUTHORIZED, "unauthorized");
    };
    let Some(list) = List::parse(&query.unwrap_or_default()) else {
        return error(StatusCode::BAD_REQUEST, "bad_parameter");
    };
    let companies: Vec<Value> = caller
        .user
        .companies
        .iter()
        .filter_map(|id| site.world.company(*id))
        .map(|company| {
            let fields =
                json!({"id": company.id, "name": company.name, "is_active": company.active});
            Value::Object(fixtures::filled(&fixtures::PROCORE_COMPANY, fields))
        })
        .collect();
    let total = companies.len();
    let page = companies
        .into_iter()
        .skip(list.offset())
        .take(list.per_page)
        .collect();
    list.answer(
        &format!("{}/rest/v1.0/companies", site.issuer()),
        page,
        total,
    )
}

/// `GET /rest/v1.0/projects?company_id=…`.
pub(crate) async fn projects(
    State(site): State<Site>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(caller) = ApiCaller::of(&site, &headers) else {
        return error(StatusCode::UNAUTHORIZED, "unauthorized");
    };
    let list = List::parse(&query.unwrap_or_default());
    let (list, company) = match company(&site, &caller, &headers, list) {
        Ok(found) => found,
        Err((status, name)) => return error(status, name),
    };
    let name = CollectionName {
        provider: site.slug.to_string(),
        collection: CollectionKind::Projects,
        owner: company.id.to_string(),
    };
    let mut records = site.world.records();
    let collection = records.collection(&name);
    let mut found: Vec<(u64, &Record)> = collection
        .live()
        .filter(|(_, record)| {
            list.updated
                .is_none_or(|(from, to)| record.updated_ms >= from && record.updated_ms <= to)
        })
        .collect();
    match list.sort {
        Sort::Id => {}
        Sort::Updated => found.sort_by_key(|(ordinal, record)| (record.updated_ms, *ordinal)),
        Sort::UpdatedDescending => {
            found.sort_by_key(|(ordinal, record)| (-record.updated_ms, *ordinal));
        }
    }
    let total = found.len();
    let page = found
        .into_iter()
        .skip(list.offset())
        .take(list.per_page)
        .map(|(ordinal, record)| project(collection, ordinal, record, company))
        .collect();
    list.answer(
        &format!("{}/rest/v1.0/projects", site.issuer()),
        page,
        total,
    )
}

/// A status and the name of an error.
type Refusal = (StatusCode, &'static str);

/// The company that header and query name, if the user belongs to it.
fn company<'a>(
    site: &'a Site,
    caller: &ApiCaller,
    headers: &HeaderMap,
    list: Option<List>,
) -> Result<(List, &'a CompanyConfig), Refusal> {
    let Some(header) = headers.get(COMPANY_HEADER) else {
        return Err((StatusCode::BAD_REQUEST, "missing_company_header"));
    };
    let list = list.ok_or((StatusCode::BAD_REQUEST, "bad_parameter"))?;
    let id = list
        .company_id
        .ok_or((StatusCode::BAD_REQUEST, "bad_parameter"))?;
    if header.to_str().ok().and_then(|text| text.parse().ok()) != Some(id) {
        return Err((StatusCode::FORBIDDEN, "company_mismatch"));
    }
    let company = site
        .world
        .company(id)
        .filter(|company| caller.user.companies.contains(&company.id));
    company
        .map(|company| (list, company))
        .ok_or((StatusCode::FORBIDDEN, "not_connected"))
}

fn project(
    collection: &Collection,
    ordinal: u64,
    record: &Record,
    company: &CompanyConfig,
) -> Value {
    let mut dice = collection.dice(ordinal);
    let (city, state, zip, county) = dice.pick(words::CITIES);
    let name = format!("{city} {}", dice.pick(words::BUILDINGS));
    let number = format!("P-{ordinal:05}");
    let phase = dice.below(words::STAGES.len() as u64);
    let start = iso_seconds(record.created_ms);
    let fields = json!({
        "id": collection.project_id(ordinal),
        "address": format!("{} {}", 1 + dice.below(200), dice.pick(words::STREETS)),
        "city": city,
        "state_code": state,
        "zip": zip,
        "county": county,
        "company": {"id": company.id, "name": company.name},
        "created_at": start,
        "display_name": format!("{number} - {name}"),
        "name": name,
        "project_number": number,
        "project_stage": {"id": phase + 1, "name": words::STAGES[phase as usize]},
        "square_feet": 1000 * (1 + dice.below(90)),
        "start_date": &start[..10],
        "completion_date": &iso_seconds(record.created_ms + 400 * 24 * 3_600_000)[..10],
        "total_value": format!("{}.0", 10_000 * (1 + dice.below(5000))),
        "updated_at": iso_seconds(record.updated_ms),
    });
    let mut project = fixtures::filled(&fixtures::PROCORE_PROJECT, fields);
    project.extend(record.fields.clone());
    Value::Object(project)
}

impl List {
    fn parse(query: &str) -> Option<Self> {
        let mut list = Self {
            page: 1,
            per_page: DEFAULT_PER_PAGE,
            company_id: None,
            updated: None,
            sort: Sort::Id,
            rest: Vec::new(),
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "page" => list.page = value.parse().ok().filter(|page| *page >= 1)?,
                "per_page" => {
                    list.per_page = value
                        .parse::<usize>()
                        .ok()
                        .filter(|size| *size >= 1)?
                        .min(MAX_PER_PAGE);
                }
                "company_id" => list.company_id = Some(value.parse().ok()?),
                "filters[updated_at]" => list.updated = Some(range(&value)?),
                "sort" => {
                    list.sort = match &*value {
                        "id" => Sort::Id,
                        "updated_at" => Sort::Updated,
                        "-updated_at" => Sort::UpdatedDescending,
                        _ => return None,
                    }
                }
                _ => {}
            }
            if name != "page" && name != "per_page" {
                list.rest.push((name.into_owned(), value.into_owned()));
            }
        }
        Some(list)
    }

    fn offset(&self) -> usize {
        (self.page - 1).saturating_mul(self.per_page)
    }

    fn answer(&self, url: &str, page: Vec<Value>, total: usize) -> Response {
        let mut response = Json(page).into_response();
        let headers = response.headers_mut();
        headers.insert(HeaderName::from_static("total"), HeaderValue::from(total));
        headers.insert(
            HeaderName::from_static("per-page"),
            HeaderValue::from(self.per_page),
        );
        let links = self.links(url, total);
        if !links.is_empty() {
            headers.insert(
                header::LINK,
                HeaderValue::try_from(links).expect("a URL is ASCII"),
            );
        }
        response
    }

    /// From page 1 there is no `first` and no `prev`, from page 2 no `prev`, from the last one no `next`.
    fn links(&self, url: &str, total: usize) -> String {
        let last = total.div_ceil(self.per_page).max(1);
        let link = |page: usize, rel: &str| {
            let query = form_urlencoded::Serializer::new(String::new())
                .extend_pairs(&self.rest)
                .append_pair("page", &page.to_string())
                .append_pair("per_page", &self.per_page.to_string())
                .finish();
            format!("<{url}?{query}>; rel=\"{rel}\"")
        };
        let mut links = Vec::new();
        if self.page > 1 {
            links.push(link(1, "first"));
        }
        if self.page > 2 {
            links.push(link(self.page - 1, "prev"));
        }
        if self.page < last {
            links.push(link(last, "last"));
            links.push(link(self.page + 1, "next"));
        }
        links.join(", ")
    }
}

/// `FROM...TO`, both inclusive; a bare date as an end takes in that whole day.
fn range(text: &str) -> Option<(i64, i64)> {
    let (from, to) = text.trim_matches('"').split_once("...")?;
    let whole_second = if to.contains('T') {
        999
    } else {
        24 * 3_600_000 - 1
    };
    Some((parse_iso(from)?, parse_iso(to)? + whole_second))
}

/// An error in Procore's form.
pub(crate) fn error(status: StatusCode, name: &str) -> Response {
    let text = fixtures::text(&fixtures::PROCORE_ERRORS, name);
    if name == "missing_company_header" || name == "rate_limited" {
        return (status, text).into_response();
    }
    (status, Json(json!({"errors": text}))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rels(query: &str, total: usize) -> Vec<String> {
        let links = List::parse(query)
            .expect("a good query")
            .links("http://p/x", total);
        links
            .split(", ")
            .filter_map(|link| link.split("rel=").nth(1))
            .map(|rel| rel.trim_matches('"').to_owned())
            .collect()
    }

    #[test]
    fn links_are_those_of_the_documentation() {
        assert_eq!(rels("page=1&per_page=5", 150), ["last", "next"]);
        assert_eq!(rels("page=2&per_page=5", 150), ["first", "last", "next"]);
        assert_eq!(
            rels("page=3&per_page=5", 150),
            ["first", "prev", "last", "next"]
        );
        assert_eq!(rels("page=30&per_page=5", 150), ["first", "prev"]);
        assert_eq!(rels("", 3), Vec::<String>::new());
    }

    #[test]
    fn nonsense_is_refused() {
        for query in [
            "page=0",
            "page=x",
            "per_page=0",
            "company_id=abc",
            "sort=name",
            "filters[updated_at]=today",
        ] {
            assert!(List::parse(query).is_none(), "{query}");
        }
        assert_eq!(
            List::parse("per_page=99999")
                .expect("it is cut down")
                .per_page,
            MAX_PER_PAGE
        );
    }
}
