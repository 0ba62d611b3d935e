//! Paging, filters and changes of the APIs.

use std::collections::{BTreeMap, BTreeSet};

use provider_sim::config::{CollectionKind, RateHeaders, RateLimit};
use provider_sim::{Changes, CollectionName, Update};
use serde_json::{Map, Value, json};

use crate::support::{Sim, config, text};

const COMPANY: &str = "562949953500001";

fn projects() -> CollectionName {
    CollectionName {
        provider: "procore".to_owned(),
        collection: CollectionKind::Projects,
        owner: COMPANY.to_owned(),
    }
}

fn messages() -> CollectionName {
    CollectionName {
        provider: "microsoft".to_owned(),
        collection: CollectionKind::Messages,
        owner: "alice".to_owned(),
    }
}

async fn procore() -> (Sim, String) {
    let sim = Sim::start("procore", |_| {}).await;
    let tokens = sim.connect("procore", "alice", "").await;
    (sim, text(&tokens, "access_token"))
}

async fn microsoft() -> (Sim, String) {
    let sim = Sim::start("microsoft", |_| {}).await;
    let tokens = sim.connect("microsoft", "alice", "Mail.Read").await;
    (sim, text(&tokens, "access_token"))
}

/// Follows `Link` to the end.
async fn all_projects(sim: &Sim, token: &str, query: &str) -> Vec<Value> {
    let mut url = format!(
        "{}/rest/v1.0/projects?company_id={COMPANY}&{query}",
        sim.issuer("procore")
    );
    let mut found = Vec::new();
    loop {
        let answer = sim
            .api_url(&url, token, &[("procore-company-id", COMPANY)])
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        found.extend(answer.json().unwrap().as_array().unwrap().clone());
        let links = answer.header("link").unwrap_or_default();
        let next = links
            .split(", ")
            .find(|link| link.ends_with("rel=\"next\""));
        if let Some(next) = next {
            let target = next.trim_start_matches('<').split('>').next();
            target.unwrap().clone_into(&mut url);
        } else {
            assert_eq!(answer.header("total").unwrap(), found.len().to_string());
            return found;
        }
    }
}

/// Follows `@odata.nextLink` to the end; gives the last page's `@odata.deltaLink` too.
async fn all_messages(sim: &Sim, token: &str, url: &str) -> (Vec<Value>, Option<String>) {
    let mut url = url.to_owned();
    let mut found = Vec::new();
    loop {
        let answer = sim
            .api_url(&url, token, &[("prefer", "odata.maxpagesize=17")])
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let body = answer.json().unwrap();
        found.extend(body["value"].as_array().unwrap().clone());
        match body.get("@odata.nextLink") {
            Some(next) => next.as_str().unwrap().clone_into(&mut url),
            None => return (found, body["@odata.deltaLink"].as_str().map(str::to_owned)),
        }
    }
}

fn ids(records: &[Value]) -> BTreeSet<String> {
    let id = |record: &Value| {
        record["id"]
            .as_str()
            .map_or_else(|| record["id"].to_string(), str::to_owned)
    };
    let ids: BTreeSet<String> = records.iter().map(id).collect();
    assert_eq!(ids.len(), records.len(), "no record comes twice");
    ids
}

fn expected(sim: &Sim, name: &CollectionName) -> BTreeSet<String> {
    sim.control()
        .records(name)
        .unwrap()
        .into_iter()
        .map(|record| record.id)
        .collect()
}

#[tokio::test]
async fn paging_projects_to_the_end_gives_each_once() {
    let (sim, token) = procore().await;
    let found = all_projects(&sim, &token, "per_page=7").await;
    assert_eq!(ids(&found), expected(&sim, &projects()));
    assert_eq!(found.len(), 200);
    assert!(
        found
            .iter()
            .all(|project| project["id"].as_u64().unwrap() > u64::from(u32::MAX))
    );
    let dates: Vec<&str> = found
        .iter()
        .map(|project| project["created_at"].as_str().unwrap())
        .collect();
    assert!(
        dates.is_sorted() && dates[0].starts_with("2025-06") && dates[199].starts_with("2026-05"),
        "{} to {}",
        dates[0],
        dates[199]
    );
}

#[tokio::test]
async fn two_runs_have_the_same_records_and_two_companies_have_not() {
    let (one, token) = procore().await;
    let (two, other) = procore().await;
    let found = all_projects(&one, &token, "per_page=10000").await;
    assert_eq!(found, all_projects(&two, &other, "per_page=10000").await);
    let second = CollectionName {
        owner: "562949953500002".to_owned(),
        ..projects()
    };
    assert!(expected(&one, &second).is_disjoint(&ids(&found)));
}

#[tokio::test]
async fn an_incremental_read_finds_what_was_inserted_and_updated() {
    let (sim, token) = procore().await;
    let before = sim.control().records(&projects()).unwrap();
    sim.advance(3600).await;
    let since = sim.control().now();
    let fields = |name: &str| Map::from_iter([("name".to_owned(), json!(name))]);
    let changes = Changes {
        insert: vec![fields("Brand new")],
        update: vec![Update {
            id: before[3].id.clone(),
            fields: fields("Renamed"),
        }],
        delete: vec![before[5].id.clone()],
    };
    let done = sim
        .control()
        .change_records(&projects(), changes)
        .await
        .unwrap();
    let query = format!("filters[updated_at]={since}...2027-01-01&sort=-updated_at");
    let found = all_projects(&sim, &token, &query).await;
    let names: BTreeSet<&str> = found
        .iter()
        .map(|project| project["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, BTreeSet::from(["Brand new", "Renamed"]));
    assert!(ids(&found).contains(&done.inserted[0]));
    let all = ids(&all_projects(&sim, &token, "").await);
    assert_eq!(
        (all.len(), all.contains(&before[5].id)),
        (200, false),
        "one more, one less"
    );
}

#[tokio::test]
async fn companies_are_the_users_own_and_their_header_is_needed() {
    let (sim, token) = procore().await;
    let companies = sim
        .api("procore", "/rest/v1.0/companies", &token, &[])
        .await
        .json()
        .unwrap();
    assert_eq!(
        ids(companies.as_array().unwrap()),
        BTreeSet::from([COMPANY.to_owned(), "562949953500002".to_owned()])
    );
    let me = sim
        .api("procore", "/rest/v1.0/me", &token, &[])
        .await
        .json()
        .unwrap();
    assert_eq!(
        me,
        json!({"id": 562_949_953_421_001_u64, "login": "alice@example.com", "name": "Alice Moreau"})
    );

    let list = async |company: &str, header: Option<&str>| {
        let headers: Vec<_> = header
            .into_iter()
            .map(|header| ("procore-company-id", header))
            .collect();
        sim.api(
            "procore",
            &format!("/rest/v1.0/projects?company_id={company}"),
            &token,
            &headers,
        )
        .await
    };
    let missing = list(COMPANY, None).await;
    assert_eq!(missing.status, 400);
    assert!(
        missing
            .text()
            .starts_with("Missing Procore-Company-Id header!")
    );
    assert_eq!(
        list(COMPANY, Some("562949953500002")).await.status,
        403,
        "two different companies"
    );
    let foreign = "562949953500003";
    assert_eq!(
        list(foreign, Some(foreign)).await.status,
        403,
        "Alice does not belong to it"
    );
    assert_eq!(list("", Some(COMPANY)).await.status, 400);
    let stranger = sim
        .api("procore", "/rest/v1.0/companies", "nonsense", &[])
        .await;
    assert_eq!(
        (stranger.status.as_u16(), stranger.text()),
        (
            401,
            r#"{"errors":"The access token is invalid"}"#.to_owned()
        )
    );
}

#[tokio::test]
async fn paging_messages_to_the_end_gives_each_once_newest_first() {
    let (sim, token) = microsoft().await;
    let url = format!(
        "{}/v1.0/me/messages?$top=13&$orderby=receivedDateTime%20desc",
        sim.issuer("microsoft")
    );
    let (found, _) = all_messages(&sim, &token, &url).await;
    assert_eq!(ids(&found), expected(&sim, &messages()));
    let dates: Vec<&str> = found
        .iter()
        .map(|message| message["receivedDateTime"].as_str().unwrap())
        .collect();
    assert!(dates.is_sorted_by(|newer, older| newer >= older));
    assert!(
        found[0]
            .as_object()
            .unwrap()
            .keys()
            .all(|name| !name.starts_with('_')),
        "notes of a fixture are never sent"
    );
}

#[tokio::test]
async fn a_filter_and_a_selection_are_applied() {
    let (sim, token) = microsoft().await;
    let since = "2026-05-01T00:00:00Z";
    let query = format!(
        "$filter=receivedDateTime%20ge%20{since}&$orderby=receivedDateTime&$select=subject,receivedDateTime&$count=true"
    );
    let url = format!("{}/v1.0/me/messages?{query}", sim.issuer("microsoft"));
    let (found, _) = all_messages(&sim, &token, &url).await;
    let wanted = sim
        .control()
        .records(&messages())
        .unwrap()
        .into_iter()
        .filter(|record| record.created_at.as_str() >= since)
        .count();
    assert!(wanted > 10 && wanted < 30, "{wanted}");
    assert_eq!(found.len(), wanted);
    let names: Vec<&str> = found[0]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(names, ["@odata.etag", "id", "receivedDateTime", "subject"]);
    let bad = sim
        .api(
            "microsoft",
            "/v1.0/me/messages?$filter=nonsense",
            &token,
            &[],
        )
        .await;
    assert_eq!(
        (bad.status.as_u16(), &bad.json().unwrap()["error"]["code"]),
        (400, &json!("ErrorInvalidUrlQueryFilter"))
    );
}

#[tokio::test]
async fn a_delta_tells_what_has_changed_since() {
    let (sim, token) = microsoft().await;
    let url = format!(
        "{}/v1.0/me/mailFolders/inbox/messages/delta",
        sim.issuer("microsoft")
    );
    let (found, link) = all_messages(&sim, &token, &url).await;
    assert_eq!(ids(&found), expected(&sim, &messages()));
    let (nothing, link) = all_messages(&sim, &token, &link.unwrap()).await;
    assert!(nothing.is_empty());

    let before = sim.control().records(&messages()).unwrap();
    sim.advance(60).await;
    let changes = Changes {
        insert: vec![Map::new()],
        update: vec![Update {
            id: before[0].id.clone(),
            fields: Map::from_iter([("isRead".to_owned(), json!(false))]),
        }],
        delete: vec![before[1].id.clone()],
    };
    let done = sim
        .control()
        .change_records(&messages(), changes)
        .await
        .unwrap();
    let (found, _) = all_messages(&sim, &token, &link.unwrap()).await;
    let by_id: BTreeMap<&str, &Value> = found
        .iter()
        .map(|entry| (entry["id"].as_str().unwrap(), entry))
        .collect();
    assert_eq!(by_id.len(), 3);
    assert_eq!(by_id[before[0].id.as_str()]["isRead"], false);
    assert_eq!(
        by_id[before[1].id.as_str()]["@removed"],
        json!({"reason": "deleted"})
    );
    assert!(by_id.contains_key(done.inserted[0].as_str()));
}

#[tokio::test]
async fn changes_during_a_round_are_not_lost() {
    let (sim, token) = microsoft().await;
    let mut url = format!(
        "{}/v1.0/me/mailFolders/inbox/messages/delta",
        sim.issuer("microsoft")
    );
    let mut ledger: BTreeSet<String> = BTreeSet::new();
    for round in 0..4_u64 {
        loop {
            let body = sim
                .api_url(&url, &token, &[("prefer", "odata.maxpagesize=17")])
                .await
                .unwrap()
                .json()
                .unwrap();
            for entry in body["value"].as_array().unwrap() {
                let id = text(entry, "id");
                if entry.get("@removed").is_some() {
                    ledger.remove(&id)
                } else {
                    ledger.insert(id)
                };
            }
            if let Some(next) = body.get("@odata.nextLink") {
                next.as_str().unwrap().clone_into(&mut url);
                if round < 3 {
                    sim.advance(1).await;
                    sim.control()
                        .churn_records(&messages(), 9, round + 100)
                        .await
                        .unwrap();
                }
            } else {
                url = text(&body, "@odata.deltaLink");
                break;
            }
        }
    }
    assert_eq!(ledger, expected(&sim, &messages()));
}

#[tokio::test]
async fn a_delta_token_that_is_too_old_is_gone() {
    let (sim, token) = microsoft().await;
    let url = format!(
        "{}/v1.0/me/mailFolders/inbox/messages/delta",
        sim.issuer("microsoft")
    );
    let (_, link) = all_messages(&sim, &token, &url).await;
    sim.control().expire_delta_tokens().await.unwrap();
    let answer = sim.api_url(&link.unwrap(), &token, &[]).await.unwrap();
    assert_eq!(
        (
            answer.status.as_u16(),
            &answer.json().unwrap()["error"]["code"]
        ),
        (410, &json!("syncStateNotFound"))
    );
    assert_eq!(
        all_messages(&sim, &token, &url).await.0.len(),
        200,
        "a new round begins"
    );
}

#[tokio::test]
async fn mail_needs_its_scope() {
    let sim = Sim::start("microsoft", |_| {}).await;
    let tokens = sim.connect("microsoft", "alice", "User.Read").await;
    let token = text(&tokens, "access_token");
    let refused = sim.api("microsoft", "/v1.0/me/messages", &token, &[]).await;
    assert_eq!(
        (
            refused.status.as_u16(),
            &refused.json().unwrap()["error"]["code"]
        ),
        (403, &json!("ErrorAccessDenied"))
    );
    let me = sim
        .api("microsoft", "/v1.0/me", &token, &[])
        .await
        .json()
        .unwrap();
    assert_eq!(
        (&me["mail"], &me["givenName"]),
        (&json!("alice@example.com"), &json!("Alice"))
    );
    let organization = sim
        .api("microsoft", "/v1.0/organization", &token, &[])
        .await
        .json()
        .unwrap();
    assert_eq!(organization["value"][0]["displayName"], "Example Works");
    assert_eq!(
        sim.api("microsoft", "/v1.0/me/messages", "nonsense", &[])
            .await
            .status,
        401
    );
}

#[tokio::test]
async fn the_number_of_records_is_configured_by_kind() {
    let mut config = config();
    config.records = 3;
    config.records_of = BTreeMap::from([(CollectionKind::Projects, 20_000)]);
    let sim = Sim::start_with(config).await;
    assert_eq!(sim.control().records(&messages()).unwrap().len(), 3);
    let tokens = sim.connect("procore", "alice", "").await;
    let found = all_projects(&sim, &text(&tokens, "access_token"), "per_page=10000").await;
    assert_eq!(ids(&found).len(), 20_000);
}

#[tokio::test]
async fn a_rate_limit_is_told_in_every_answer_and_kept() {
    let sim = Sim::start("procore", |provider| {
        provider.rate_limit = Some(RateLimit {
            calls: 2,
            window_seconds: 60,
            headers: RateHeaders::Procore,
        });
    })
    .await;
    let token = text(&sim.connect("procore", "alice", "").await, "access_token");
    let mut remaining = Vec::new();
    for _ in 0..3 {
        let answer = sim.api("procore", "/rest/v1.0/me", &token, &[]).await;
        assert_eq!(answer.header("x-rate-limit-limit"), Some("2"));
        assert_eq!(answer.header("x-rate-limit-reset"), Some("1780315260"));
        remaining.push((
            answer.status.as_u16(),
            answer.header("x-rate-limit-remaining").unwrap().to_owned(),
        ));
    }
    assert_eq!(
        remaining,
        [
            (200, "1".to_owned()),
            (200, "0".to_owned()),
            (429, "0".to_owned())
        ]
    );
    let other = text(&sim.connect("procore", "bob", "").await, "access_token");
    assert_eq!(
        sim.api("procore", "/rest/v1.0/me", &other, &[])
            .await
            .status,
        200,
        "each grant has its own"
    );
    sim.advance(60).await;
    assert_eq!(
        sim.api("procore", "/rest/v1.0/me", &token, &[])
            .await
            .status,
        200
    );
}
