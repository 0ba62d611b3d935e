//! Against answers made by hand: what paging does at its borders.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderValue, header};
use proptest::prelude::*;
use serde_json::{Value, json};
use time::macros::datetime;

use super::*;
use crate::request::Target;
use crate::schema::{Connector, parse};

const NOW: OffsetDateTime = datetime!(2026-06-01 12:00 UTC);

fn connector(streams: &str) -> Connector {
    let head = "provider: test\ndisplay_name: Test\ndocs_url: https://p.example/docs\nstreams:\n";
    match parse("test.yaml", &format!("{head}{streams}")) {
        Ok(connector) => connector,
        Err(problems) => panic!("{problems:#?}"),
    }
}

fn stream(rest: &str) -> Stream {
    let head = "  - stream: things\n    display_name: Things\n    default_cadence: 1h\n    page_size: 2\n    record: { items: /items, id: /id, updated_at: /at }\n";
    connector(&format!("{head}{rest}")).streams.remove(0)
}

fn task(kind: JobKind, cursor: &[u8]) -> Task<'_> {
    Task {
        kind,
        window_start: None,
        window_end: None,
        cursor,
        account: "7",
        external_ids: &[],
        now: NOW,
    }
}

fn ids(page: &Page) -> Vec<&str> {
    page.records
        .iter()
        .map(|record| record.external_id.as_str())
        .collect()
}

fn query(run: &Run<'_>) -> BTreeMap<String, String> {
    match run.request().unwrap().unwrap().target {
        Target::Path { query, .. } => query.into_iter().collect(),
        Target::Url(url) => BTreeMap::from([("url".to_owned(), url)]),
    }
}

fn apply(
    run: &mut Run<'_>,
    status: u16,
    headers: &[(header::HeaderName, &str)],
    body: &Value,
) -> Result<Page, PageError> {
    let headers = headers
        .iter()
        .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
        .collect();
    let status = StatusCode::from_u16(status).unwrap();
    run.apply(&Answer {
        status,
        headers: &headers,
        body: body.to_string().as_bytes(),
    })
}

fn give(run: &mut Run<'_>, body: &Value) -> Page {
    apply(run, 200, &[], body).unwrap()
}

const PAGES: &str = "    backfill:
      range: whole
      request: { path: /things, query: { page: \"{page}\", size: \"{page_size}\" } }
      paging: { kind: pages, total: X-Total }
";

const KEYSET: &str = "    backfill:
      range: window
      request: { path: /things, query: { from: \"{from}\", until: \"{until}\" } }
      paging: { kind: keyset, by: /at, order: descending, next: /next }
    incremental:
      kind: time
      overlap: 2m
      request: { path: /things, query: { since: \"{from}\" } }
      paging: { kind: keyset, by: /at, order: ascending, next: /next }
    single:
      request: { path: \"/things/{id}\" }
      gone: { status: [404], at: /error, is: [not_found] }
";

const DELTA: &str = "    backfill:
      range: window
      request: { path: /delta, query: { since: \"{from}\" } }
      paging: { kind: next_url, next: /next }
      done: /delta
    incremental: { kind: delta, paging: { kind: next_url, next: /next }, done: /delta }
";

const TOKENS: &str = "    backfill:
      range: whole
      request: { path: /things, query: { cursor: \"{cursor}\" } }
      paging: { kind: cursor, at: /next }
    incremental:
      kind: delta
      mark: { request: { path: /head }, at: /token }
      request: { path: /changes, query: { token: \"{cursor}\" } }
      paging: { kind: cursor, at: /next }
      done: /token
";

#[test]
fn numbered_pages_end_with_the_total_or_without_a_next_link() {
    let stream = stream(PAGES);
    let total = header::HeaderName::from_static("x-total");
    let mut run = Run::start(&stream, task(JobKind::Initial, b"")).unwrap();
    assert_eq!(
        query(&run),
        BTreeMap::from([("page".into(), "1".into()), ("size".into(), "2".into())])
    );
    apply(
        &mut run,
        200,
        &[(total.clone(), "3")],
        &json!({"items": [{"id": 1}, {"id": 2}]}),
    )
    .unwrap();
    assert_eq!(query(&run)["page"], "2");
    apply(
        &mut run,
        200,
        &[(total, "3")],
        &json!({"items": [{"id": 3}]}),
    )
    .unwrap();
    assert_eq!(run.request(), Ok(None));

    let mut run = Run::start(&stream, task(JobKind::Initial, b"")).unwrap();
    let next = "<https://p.example/things?page=2>; rel=\"next\"";
    apply(
        &mut run,
        200,
        &[(header::LINK, next)],
        &json!({"items": [{"id": 1}, {"id": 2}]}),
    )
    .unwrap();
    assert_eq!(query(&run)["page"], "2");
    let first = "<https://p.example/things?page=1>; rel=\"first\"";
    apply(
        &mut run,
        200,
        &[(header::LINK, first)],
        &json!({"items": [{"id": 3}, {"id": 4}]}),
    )
    .unwrap();
    assert_eq!(run.request(), Ok(None));

    let mut run = Run::start(&stream, task(JobKind::Initial, b"")).unwrap();
    give(&mut run, &json!({"items": [{"id": 1}, {"id": 2}]}));
    give(&mut run, &json!({"items": [{"id": 3}]}));
    assert_eq!(run.request(), Ok(None));
}

#[test]
fn a_page_of_a_single_time_is_left_by_the_providers_own_way() {
    let stream = stream(KEYSET);
    let cursor = br#"{"mark": {"time": "2026-05-31T12:00:00Z"}}"#;
    let mut run = Run::start(&stream, task(JobKind::Incremental, cursor)).unwrap();
    assert_eq!(query(&run)["since"], "2026-05-31T11:58:00Z");
    let at = "2026-05-31T12:30:00Z";
    let page = give(
        &mut run,
        &json!({"items": [{"id": "a", "at": at}, {"id": "b", "at": at}], "next": "https://p/2"}),
    );
    assert_eq!(ids(&page), ["a", "b"]);
    assert_eq!(query(&run)["since"], at, "from the last record's time on");
    let page = give(
        &mut run,
        &json!({"items": [{"id": "a", "at": at}, {"id": "b", "at": at}], "next": "https://p/3"}),
    );
    assert_eq!(ids(&page), Vec::<&str>::new(), "they have been there");
    assert_eq!(query(&run)["url"], "https://p/3");
    let later = "2026-05-31T12:30:01Z";
    let page = give(
        &mut run,
        &json!({"items": [{"id": "c", "at": at}, {"id": "d", "at": later}], "next": "https://p/4"}),
    );
    assert_eq!(ids(&page), ["c", "d"]);
    assert_eq!(query(&run)["since"], later);
    let page = give(&mut run, &json!({"items": [{"id": "d", "at": later}]}));
    assert_eq!(ids(&page), Vec::<&str>::new());
    assert_eq!(run.request(), Ok(None));
    assert_eq!(
        run.rest(),
        br#"{"mark":{"time":"2026-06-01T12:00:00Z"}}"#,
        "the time at which the job began"
    );
    assert_eq!(run.mark(), None, "an incremental job's own cursor is all");
}

#[test]
fn what_is_not_sorted_is_noticed() {
    let stream = stream(KEYSET);
    let mut run = Run::start(&stream, task(JobKind::Initial, b"")).unwrap();
    let body = json!({"items": [{"id": 1, "at": "2026-01-01T00:00:00Z"}, {"id": 2, "at": "2026-02-01T00:00:00Z"}], "next": "https://p/2"});
    let before = run.position();
    assert_eq!(apply(&mut run, 200, &[], &body), Err(PageError::Unsorted));
    assert_eq!(run.position(), before, "nothing has moved");
}

#[test]
fn a_window_is_asked_for_to_whole_seconds() {
    let stream = stream(KEYSET);
    let window = Task {
        window_start: Some(datetime!(2026-01-01 0:00:00.9 UTC)),
        window_end: Some(datetime!(2026-02-01 0:00:00.1 UTC)),
        ..task(JobKind::Initial, b"")
    };
    let mut run = Run::start(&stream, window).unwrap();
    assert_eq!(query(&run)["from"], "2026-01-01T00:00:00Z");
    assert_eq!(query(&run)["until"], "2026-02-01T00:00:01Z");
    assert_eq!(
        run.mark().unwrap(),
        br#"{"mark":{"time":"2026-02-01T00:00:00.1Z"}}"#,
        "what comes after the window is the incremental reads'"
    );
    give(
        &mut run,
        &json!({"items": [{"id": 1, "at": "2026-01-16T12:00:00Z"}], "next": "https://p/2"}),
    );
    assert!(
        (run.fraction().unwrap() - 0.5).abs() < 0.01,
        "{:?}",
        run.fraction()
    );
    assert_eq!(
        query(&run)["until"],
        "2026-01-16T12:00:01Z",
        "the record at the border comes once more"
    );
}

#[test]
fn slices_go_from_the_newest_to_the_oldest() {
    let sliced = KEYSET
        .replacen(
            "      range: window\n",
            "      range: window\n      slice: 10d\n",
            1,
        )
        .replacen(
            "kind: keyset, by: /at, order: descending, next: /next",
            "kind: next_url, next: /next",
            1,
        );
    let stream = stream(&sliced);
    let window = Task {
        window_start: Some(datetime!(2026-01-01 0:00 UTC)),
        window_end: Some(datetime!(2026-01-25 0:00 UTC)),
        ..task(JobKind::Initial, b"")
    };
    let mut run = Run::start(&stream, window).unwrap();
    let mut asked = Vec::new();
    while run.request().unwrap().is_some() {
        let query = query(&run);
        asked.push((
            query["from"][..10].to_owned(),
            query["until"][..10].to_owned(),
        ));
        give(&mut run, &json!({"items": []}));
    }
    let expected = [
        ("2026-01-15", "2026-01-25"),
        ("2026-01-05", "2026-01-15"),
        ("2026-01-01", "2026-01-05"),
    ];
    assert_eq!(
        asked,
        expected.map(|(from, until)| (from.to_owned(), until.to_owned()))
    );
}

#[test]
fn without_a_cursor_nothing_older_than_the_trigger_is_read() {
    let timed = stream(KEYSET);
    let trigger = Task {
        window_start: Some(datetime!(2026-06-01 11:59 UTC)),
        ..task(JobKind::Incremental, b"")
    };
    let run = Run::start(&timed, trigger).unwrap();
    assert_eq!(query(&run)["since"], "2026-06-01T11:59:00Z");

    let stream = stream(DELTA);
    let mut run = Run::start(&stream, trigger).unwrap();
    assert_eq!(query(&run)["since"], "2026-06-01T11:59:00Z");
    let page = give(
        &mut run,
        &json!({"items": [{"id": 1, "at": "2026-06-01T11:58:59Z"}, {"id": 2, "at": "2026-06-01T11:59:00Z"}], "delta": "https://p/d1"}),
    );
    assert_eq!(ids(&page), ["2"]);
    assert_eq!(run.rest(), br#"{"mark":{"token":"https://p/d1"}}"#);
    assert_eq!(run.request(), Ok(None));
}

#[test]
fn a_delta_link_is_followed_and_replaced() {
    let stream = stream(DELTA);
    let mut run = Run::start(&stream, task(JobKind::Initial, b"")).unwrap();
    assert_eq!(run.mark(), None, "the provider gives it at the end");
    give(
        &mut run,
        &json!({"items": [{"id": 1}], "next": "https://p/n1"}),
    );
    assert_eq!(query(&run)["url"], "https://p/n1");
    give(
        &mut run,
        &json!({"items": [{"id": 2}], "delta": "https://p/d1"}),
    );
    let mark = run.mark().unwrap();

    let mut run = Run::start(&stream, task(JobKind::Incremental, &mark)).unwrap();
    assert_eq!(query(&run)["url"], "https://p/d1");
    assert!(run.request().unwrap().unwrap().resumes);
    give(&mut run, &json!({"items": [], "delta": "https://p/d2"}));
    assert_eq!(run.rest(), br#"{"mark":{"token":"https://p/d2"}}"#);

    let mut run = Run::start(&stream, task(JobKind::Incremental, &mark)).unwrap();
    assert_eq!(
        apply(&mut run, 200, &[], &json!({"items": []})),
        Err(PageError::Shape(
            "the last page has no cursor at /delta".into()
        ))
    );
    assert_eq!(run.refuse_cursor(), Refused::Lost);
}

#[test]
fn a_backfill_whose_address_is_forgotten_begins_anew_but_not_for_ever() {
    let stream = stream(DELTA);
    let mut run = Run::start(&stream, task(JobKind::Full, b"")).unwrap();
    assert_eq!(run.full_pass(), Some(NOW));
    for _ in 0..3 {
        give(
            &mut run,
            &json!({"items": [{"id": 1}], "next": "https://p/n1"}),
        );
        assert_eq!(run.refuse_cursor(), Refused::Restarted);
        assert_eq!(query(&run)["since"], "1970-01-01T00:00:00Z");
    }
    give(
        &mut run,
        &json!({"items": [{"id": 1}], "next": "https://p/n1"}),
    );
    assert_eq!(run.refuse_cursor(), Refused::Lost);
}

#[test]
fn a_token_is_taken_before_the_first_page() {
    let stream = stream(TOKENS);
    let mut run = Run::start(&stream, task(JobKind::Initial, b"")).unwrap();
    assert!(
        matches!(run.request().unwrap().unwrap().target, Target::Path { path, .. } if path == "/head")
    );
    assert_eq!(
        ids(&give(&mut run, &json!({"token": 41}))),
        Vec::<&str>::new()
    );
    let mark = run.mark().unwrap();
    assert_eq!(mark, br#"{"mark":{"token":"41"}}"#);
    assert_eq!(query(&run), BTreeMap::new(), "the first page has no cursor");
    give(&mut run, &json!({"items": [{"id": 1}], "next": "c1"}));
    assert_eq!(query(&run)["cursor"], "c1");
    // Another worker goes on from here, and takes no later mark.
    let position = run.position();
    let mut run = Run::start(&stream, task(JobKind::Initial, &position)).unwrap();
    assert_eq!(query(&run)["cursor"], "c1");
    give(&mut run, &json!({"items": [{"id": 2}]}));
    assert_eq!(run.mark().unwrap(), mark);
    let done = run.position();
    assert_eq!(
        Run::start(&stream, task(JobKind::Initial, &done))
            .unwrap()
            .request(),
        Ok(None)
    );

    let mut run = Run::start(&stream, task(JobKind::Incremental, &mark)).unwrap();
    assert_eq!(query(&run)["token"], "41");
    give(&mut run, &json!({"items": [{"id": 3}], "token": "42"}));
    assert_eq!(run.rest(), br#"{"mark":{"token":"42"}}"#);

    // A trigger without a cursor takes the token, and reads nothing.
    let mut run = Run::start(&stream, task(JobKind::Incremental, b"")).unwrap();
    give(&mut run, &json!({"token": "43"}));
    assert_eq!(run.request(), Ok(None));
    assert_eq!(run.rest(), br#"{"mark":{"token":"43"}}"#);
}

#[test]
fn single_records_are_read_and_only_the_provider_says_that_one_is_gone() {
    let stream = stream(KEYSET);
    let wanted = ["a/b".to_owned(), "c".to_owned(), "d".to_owned()];
    let cursor = br#"{"mark":{"time":"2026-05-31T12:00:00Z"}}"#;
    let job = Task {
        external_ids: &wanted,
        ..task(JobKind::Incremental, cursor)
    };
    let mut run = Run::start(&stream, job).unwrap();
    assert!(
        matches!(run.request().unwrap().unwrap().target, Target::Path { path, .. } if path == "/things/a%2Fb")
    );
    let page = give(
        &mut run,
        &json!({"id": "a/b", "at": "2026-05-31T12:00:00Z"}),
    );
    assert_eq!(ids(&page), ["a/b"]);
    assert!(run.accepts(StatusCode::NOT_FOUND) && !run.accepts(StatusCode::GONE));
    let page = apply(&mut run, 404, &[], &json!({"error": "not_found"})).unwrap();
    assert!(page.records[0].deleted && page.records[0].external_id == "c");
    assert!(apply(&mut run, 404, &[], &json!({"error": "no such route"})).is_err());
    give(&mut run, &json!({"id": "d"}));
    assert_eq!(run.request(), Ok(None));
    assert_eq!(
        (run.rest(), run.position()),
        (cursor.to_vec(), cursor.to_vec()),
        "the stream has not moved"
    );
    assert_eq!(run.full_pass(), None);
}

#[test]
fn a_cursor_of_another_kind_is_refused() {
    let (keyset, delta) = (stream(KEYSET), stream(DELTA));
    for (stream, cursor, error) in [
        (
            &keyset,
            &br#"{"mark":{"token":"x"}}"#[..],
            CursorError::Foreign,
        ),
        (
            &delta,
            br#"{"mark":{"time":"2026-05-31T12:00:00Z"}}"#,
            CursorError::Foreign,
        ),
        (&keyset, b"[1]", CursorError::Unreadable),
        (&keyset, br#"{"position": 3}"#, CursorError::Unreadable),
    ] {
        assert_eq!(
            Run::start(stream, task(JobKind::Incremental, cursor)).err(),
            Some(error)
        );
    }
    assert_eq!(
        Run::start(&stream(PAGES), task(JobKind::Incremental, b"")).err(),
        Some(CursorError::NotIncremental)
    );
}

#[test]
fn an_answer_of_another_shape_is_said_where() {
    let stream = stream(PAGES);
    let mut run = Run::start(&stream, task(JobKind::Initial, b"")).unwrap();
    let headers = HeaderMap::new();
    let answer = |body| Answer {
        status: StatusCode::OK,
        headers: &headers,
        body,
    };
    assert_eq!(run.apply(&answer(b"<html>")), Err(PageError::NotJson));
    assert_eq!(
        run.apply(&answer(b"{\"items\": [{\"id\": 1}")),
        Err(PageError::NotJson)
    );
    for body in [
        &b"[\"unexpected\"]"[..],
        b"{\"ok\": false}",
        b"{\"items\": {}}",
        b"{\"items\": [3]}",
        b"{\"items\": [{\"no\": 1}]}",
    ] {
        assert!(
            matches!(run.apply(&answer(body)), Err(PageError::Shape(_))),
            "{}",
            String::from_utf8_lossy(body)
        );
    }
    assert_eq!(query(&run)["page"], "1", "nothing has moved");
}

#[test]
fn a_stream_of_an_account_needs_one() {
    let projects = crate::find("procore").unwrap().stream("projects").unwrap();
    let run = Run::start(
        projects,
        Task {
            account: "",
            ..task(JobKind::Initial, b"")
        },
    )
    .unwrap();
    assert_eq!(run.request(), Err(RequestError::NoAccount));
}

/// A provider with records that come, change and go between two pages.
struct Provider {
    /// Time by id.
    records: BTreeMap<u32, i64>,
    clock: i64,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Insert,
    Touch(u32),
    Delete(u32),
}

impl Provider {
    fn new(count: u32) -> Self {
        // Several records share each second.
        let records = (0..count)
            .map(|id| (id, 1_000_000 + i64::from(id / 3)))
            .collect();
        Self {
            records,
            clock: 2_000_000,
        }
    }

    fn change(&mut self, change: Change) {
        self.clock += 1;
        match change {
            Change::Insert => {
                let id = self.records.keys().last().map_or(0, |last| last + 1);
                self.records.insert(id, self.clock);
            }
            Change::Touch(id) => {
                if let Some(at) = self.records.get_mut(&id) {
                    *at = self.clock;
                }
            }
            Change::Delete(id) => {
                self.records.remove(&id);
            }
        }
    }

    fn item(id: u32, at: i64) -> Value {
        json!({"id": id, "at": written(OffsetDateTime::from_unix_timestamp(at).unwrap())})
    }

    fn numbered(&self, page: usize, size: usize) -> (usize, Value) {
        let items = self.records.iter().map(|(id, at)| Self::item(*id, *at));
        let items: Vec<_> = items.skip((page - 1) * size).take(size).collect();
        (self.records.len(), json!({"items": items}))
    }

    /// Sorted by time; the way to the next page is an offset, as unreliable as offsets are.
    fn by_time(&self, from: i64, skip: usize, size: usize) -> Value {
        let mut found: Vec<_> = self.records.iter().filter(|(_, at)| **at >= from).collect();
        found.sort_by_key(|(id, at)| (**at, **id));
        let items: Vec<_> = found
            .iter()
            .skip(skip)
            .take(size)
            .map(|(id, at)| Self::item(**id, **at))
            .collect();
        let mut body = json!({"items": items});
        if skip + size < found.len() {
            body["next"] = json!(format!(
                "https://p.example/?from={from}&skip={}",
                skip + size
            ));
        }
        body
    }
}

fn changes() -> impl Strategy<Value = Vec<Vec<Change>>> {
    let change = prop_oneof![
        Just(Change::Insert),
        (0..40_u32).prop_map(Change::Touch),
        (0..40_u32).prop_map(Change::Delete),
    ];
    prop::collection::vec(prop::collection::vec(change, 0..4), 0..30)
}

fn deletions() -> impl Strategy<Value = Vec<Vec<Change>>> {
    prop::collection::vec(
        prop::collection::vec((0..40_u32).prop_map(Change::Delete), 0..4),
        0..30,
    )
}

proptest! {
    /// What is there all the time is read, whatever goes between two pages.
    #[test]
    fn numbered_pages_miss_nothing_that_stays(between in deletions(), size in 1_u32..8) {
        let stream = Stream { page_size: size, ..stream(PAGES) };
        let mut provider = Provider::new(40);
        let mut run = Run::start(&stream, task(JobKind::Initial, b"")).unwrap();
        let (mut seen, mut between) = (BTreeSet::new(), between.into_iter());
        let mut calls = 0;
        while run.request().unwrap().is_some() {
            let page: usize = query(&run)["page"].parse().unwrap();
            let (total, body) = provider.numbered(page, size as usize);
            let total = total.to_string();
            let name = header::HeaderName::from_static("x-total");
            let page = apply(&mut run, 200, &[(name, total.as_str())], &body).unwrap();
            seen.extend(page.records.into_iter().map(|record| record.external_id.parse::<u32>().unwrap()));
            for change in between.next().unwrap_or_default() {
                provider.change(change);
            }
            calls += 1;
            prop_assert!(calls < 500, "it comes to an end");
        }
        for id in provider.records.keys() {
            prop_assert!(seen.contains(id), "{id} was missed");
        }
    }

    /// By time nothing is missed, whatever comes, changes and goes: what changes comes again.
    #[test]
    fn reading_by_time_ends_with_what_is_there(between in changes(), size in 1_u32..8) {
        let stream = Stream { page_size: size, ..stream(KEYSET) };
        let mut provider = Provider::new(40);
        let cursor = br#"{"mark": {"time": "1970-01-01T00:02:00Z"}}"#;
        let mut position = Run::start(&stream, task(JobKind::Incremental, cursor)).unwrap().position();
        let (mut ledger, mut between) = (BTreeMap::new(), between.into_iter());
        let mut calls = 0;
        loop {
            // Each page is another worker's.
            let mut run = Run::start(&stream, task(JobKind::Incremental, &position)).unwrap();
            let Some(request) = run.request().unwrap() else { break };
            let body = match request.target {
                Target::Path { query, .. } => {
                    let from = OffsetDateTime::parse(&query[0].1, &Rfc3339).unwrap().unix_timestamp();
                    provider.by_time(from, 0, size as usize)
                }
                Target::Url(text) => {
                    let url = url::Url::parse(&text).unwrap();
                    let values: BTreeMap<_, _> = url.query_pairs().into_owned().collect();
                    provider.by_time(values["from"].parse().unwrap(), values["skip"].parse().unwrap(), size as usize)
                }
            };
            for record in give(&mut run, &body).records {
                ledger.insert(record.external_id.parse::<u32>().unwrap(), record.updated_at.unwrap().unix_timestamp());
            }
            position = run.position();
            // What changes after the last page is the next job's.
            let changes = if run.request().unwrap().is_some() { between.next() } else { None };
            for change in changes.unwrap_or_default() {
                provider.change(change);
            }
            calls += 1;
            prop_assert!(calls < 2000, "it comes to an end");
        }
        for (id, at) in &provider.records {
            // Records of one second are left by offset where they fill a page; there, and there only, a deletion shifts.
            if size > 3 {
                prop_assert_eq!(ledger.get(id), Some(at), "record {}", id);
            }
        }
    }
}
