use provider_catalog::{FileProblem, parse};

const GOOD: &str = r#"key: acme
display_name: Acme
categories: [crm]
docs_url: https://acme.example/docs
confidence: documented
auth_modes: [oauth2_code]
parameters:
  subdomain:
    pattern: "^[a-z0-9-]{1,63}$"
    description: The part before .acme.example
endpoints:
  authorization: https://{subdomain}.acme.example/authorize
  token: https://{subdomain}.acme.example/token
refresh:
  rotates: true
  replay_window: 30m
"#;

/// Changes one thing, and expects one problem there.
fn problem(from: &str, to: &str) -> FileProblem {
    assert!(GOOD.contains(from), "the test changes something: {from}");
    let mut problems =
        parse("catalog/acme.yaml", &GOOD.replacen(from, to, 1)).expect_err("a problem");
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

#[test]
fn a_good_file_is_read() {
    let provider = parse("catalog/acme.yaml", GOOD).expect("a good file");
    assert_eq!(provider.key.as_str(), "acme");
}

/// What is changed, into what; on which line, in which field, and what is said of it.
const CASES: [(&str, &str, usize, &str, &str); 15] = [
    (
        "token: https",
        "token: http",
        13,
        "endpoints.token",
        "must be an https URL",
    ),
    (
        "token: https",
        "tokn: https",
        13,
        "endpoints",
        "unknown field `tokn`",
    ),
    (
        "confidence: documented",
        "confidence: certain",
        5,
        "confidence",
        "unknown variant `certain`",
    ),
    (
        "rotates: true",
        "rotates: often",
        15,
        "refresh.rotates",
        "invalid type",
    ),
    (
        "replay_window: 30m",
        "replay_window: soon",
        16,
        "refresh.replay_window",
        "must be none",
    ),
    (
        "{1,63}$",
        "{1,63}",
        9,
        "parameters.subdomain.pattern",
        "must begin with ^ and end with $",
    ),
    (
        "^[a-z0-9-]{1,63}$",
        "^[a-z]+|evil$",
        9,
        "parameters.subdomain.pattern",
        "parentheses",
    ),
    (
        "^[a-z0-9-]{1,63}$",
        "^[a-z]+\\\\$",
        9,
        "parameters.subdomain.pattern",
        "anchor",
    ),
    (
        "https://{subdomain}.acme.example/token",
        "https://{other}.acme.example/token",
        13,
        "endpoints.token",
        "no parameter",
    ),
    (
        "https://{subdomain}.acme.example/token",
        "https://{sub.acme.example/token",
        13,
        "endpoints.token",
        "braces",
    ),
    (
        "https://{subdomain}.acme.example/token",
        "https://u:p@acme.example/token",
        13,
        "endpoints.token",
        "user name",
    ),
    ("key: acme", "key: Acme", 1, "key", "small letters"),
    (
        "key: acme",
        "key: other",
        1,
        "key",
        "must be the file's name",
    ),
    (
        "display_name: Acme\n",
        "",
        1,
        ".",
        "missing field `display_name`",
    ),
    (
        "auth_modes: [oauth2_code]",
        "auth_modes: []",
        6,
        "auth_modes",
        "at least one",
    ),
];

#[test]
fn problems_name_file_line_and_field() {
    for (from, to, line, field, says) in CASES {
        let found = problem(from, to);
        assert_eq!(found.file, "catalog/acme.yaml");
        assert!(
            found.problem.description.contains(says),
            "{from} → {to}: {found}"
        );
        assert!(
            found.problem.field.starts_with(field),
            "{from} → {to}: {found}"
        );
        if field != "." {
            assert_eq!(found.line, line, "{from} → {to}: {found}");
        }
    }
}

#[test]
fn what_does_not_fit_together_is_said_all_at_once() {
    let text = GOOD
        .replace("rotates: true", "rotates: false")
        .replace("[oauth2_code]", "[oauth2_code, oauth2_device]")
        + "multiple_accounts: true\nsources:\n  refresh.rotate: {confidence: documented}\n";
    let problems = parse("catalog/acme.yaml", &text).expect_err("problems");
    let fields: Vec<_> = problems
        .iter()
        .map(|found| found.problem.field.as_str())
        .collect();
    assert_eq!(
        fields,
        [
            "sources.refresh.rotate",
            "endpoints.device_authorization",
            "refresh.replay_window",
            "accounts"
        ]
    );
    assert_eq!(
        problems[2].to_string(),
        "catalog/acme.yaml:16: refresh.replay_window: is for refresh tokens that rotate"
    );
}

#[test]
fn what_is_not_yaml_is_a_problem_of_its_line() {
    let problems = parse("catalog/acme.yaml", "key: acme\n\tbad: 1").expect_err("a problem");
    assert_eq!(problems[0].line, 2, "{}", problems[0]);
    assert!(parse("catalog/acme.yaml", "").is_err());
}

#[test]
fn a_wrong_rule_is_named_with_its_line() {
    let text = GOOD.to_owned()
        + "errors:\n  rules:\n    - error: invalid_grant\n      means: reauthorization\n      cause: revoked\n";
    assert!(parse("catalog/acme.yaml", &text).is_ok());
    let cases = [
        (
            "    - description_contains: gone\n      means: transient\n",
            "text alone",
        ),
        (
            "    - error: a\n      at: /codes\n      means: transient\n",
            "both at and any_of",
        ),
        (
            "    - error: a\n      any_of: [1]\n      means: transient\n",
            "both at and any_of",
        ),
        ("    - error: a\n      means: reauthorization\n", "a cause"),
        (
            "    - error: a\n      means: transient\n      cause: revoked\n",
            "a cause",
        ),
        (
            "    - error: a\n      means: transient\n      wait: 1m\n",
            "a wait",
        ),
        (
            "    - error: a\n      description_contains: Gone\n      means: transient\n",
            "lower case",
        ),
    ];
    for (rule, says) in cases {
        let problems = parse("catalog/acme.yaml", &(text.clone() + rule)).expect_err("a problem");
        assert_eq!(problems.len(), 1, "{rule}: {problems:?}");
        assert_eq!(problems[0].problem.field, "errors.rules[1]", "{rule}");
        assert_eq!(problems[0].line, 22, "{rule}");
        assert!(
            problems[0].problem.description.contains(says),
            "{}",
            problems[0]
        );
    }
    let misspelt = text.clone() + "    - errr: a\n      means: transient\n";
    let problems = parse("catalog/acme.yaml", &misspelt).expect_err("a problem");
    assert_eq!(
        (problems[0].line, problems[0].problem.field.as_str()),
        (22, "errors.rules[1].errr")
    );
}

#[test]
fn what_a_strategy_needs_is_there_and_nothing_else() {
    let bearer = "  jwt_bearer:\n    lifetime: 5m\n";
    let exchange = "  token_exchange:\n    renew:\n      grant_type: g\n      token_param: t\n";
    let fields = |text: &str| -> Vec<String> {
        match parse("catalog/acme.yaml", text) {
            Ok(_) => Vec::new(),
            Err(problems) => problems
                .into_iter()
                .map(|found| found.problem.field)
                .collect(),
        }
    };
    let with = |strategy: &str, more: &str| {
        let text = GOOD.replace("  rotates: true\n  replay_window: 30m\n", "");
        fields(&format!("{text}  strategy: {strategy}\n{more}"))
    };
    assert!(with("jwt_bearer", bearer).is_empty());
    assert!(with("token_exchange", exchange).is_empty());
    assert!(with("client_credentials", "").is_empty());
    assert_eq!(with("jwt_bearer", ""), ["refresh.jwt_bearer"]);
    assert_eq!(with("token_exchange", ""), ["refresh.token_exchange"]);
    assert_eq!(with("refresh_token", bearer), ["refresh.jwt_bearer"]);
    assert_eq!(with("none", exchange), ["refresh.token_exchange"]);
    assert_eq!(
        with("jwt_bearer", &(bearer.to_owned() + "  rotates: true\n")),
        ["refresh.rotates"]
    );
    assert_eq!(
        fields(&(GOOD.to_owned() + "revocation: {method: DELETE}\n")),
        ["revocation.carried"]
    );
    let captured = GOOD.replace(
        "    description: The part",
        "    captured: {callback: a, token_response: /b}\n    description: The part",
    );
    assert_eq!(fields(&captured), ["parameters.subdomain.captured"]);
    assert_eq!(
        fields(&(GOOD.to_owned() + "token_response: {others: {user: \"\"}}\n")),
        ["token_response.others.user"]
    );
}
