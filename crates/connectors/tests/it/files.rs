//! Mistakes in a connector's file are said with its field.

use connectors::parse;

const GOOD: &str = include_str!("../../connectors/outlook.yaml");

fn problem(text: &str) -> String {
    let problems = parse("connectors/outlook.yaml", text).expect_err("a mistake");
    problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn mistakes_are_said_with_file_and_field() {
    assert!(parse("connectors/outlook.yaml", GOOD).is_ok());
    for (from, to, expected) in [
        (
            "display_name: Messages",
            "displayname: Messages",
            "streams[0]",
        ),
        (
            "order: descending",
            "order: downwards",
            "streams[0].backfill.paging",
        ),
        (
            "id: /id",
            "id: id",
            "streams[0].record.id: must be a JSON pointer",
        ),
        ("ge {from} and", "ge {form} and", "has no variable `form`"),
        (
            "page_size: 100",
            "page_size: 0",
            "streams[0].page_size: must be at least 1",
        ),
        (
            "path: /v1.0/me/messages\n",
            "path: v1.0/me/messages\n",
            "request.path: must begin with a slash",
        ),
        (
            " and receivedDateTime lt {until}",
            "",
            "streams[0].backfill.request: must send {until}",
        ),
        (
            "/v1.0/me/messages/{id}",
            "/v1.0/me/messages",
            "streams[0].single.request: must ask for the record {id}",
        ),
        (
            "provider: outlook",
            "provider: hotmail",
            "provider: must be the file's name",
        ),
        (
            "Prefer: IdType",
            "Authorization: IdType",
            "not the one that the connection brings",
        ),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let said = problem(&GOOD.replacen(from, to, 1));
        assert!(
            said.starts_with("connectors/outlook.yaml: ") && said.contains(expected),
            "{said}"
        );
    }
}

#[test]
fn everything_that_does_not_fit_is_said_at_once() {
    let text = GOOD.replacen("page_size: 100", "page_size: 0", 1).replacen(
        "default_cadence: 10m",
        "default_cadence: 1s",
        1,
    );
    assert_eq!(problem(&text).lines().count(), 2);
}
