//! Which file may name what.

use crate::none;
use crate::rust::{code, words};
use crate::tree::{self, File};

/// Words that only some places may say. Tests may say all of them.
struct Kept {
    words: &'static [&'static str],
    places: &'static [&'static str],
    instead: &'static str,
}

const KEPT: &[Kept] = &[
    Kept {
        words: &[
            "deadpool_postgres",
            "postgres_protocol",
            "postgres_types",
            "tokio_postgres",
            "tokio_postgres_rustls",
        ],
        places: &["bench/", "crates/common/src/pg", "crates/testkit/"],
        instead: "database types are common::pg's, and a service's store uses those",
    },
    Kept {
        words: &[
            "tonic",
            "tonic_health",
            "tonic_prost",
            "tonic_reflection",
            "tonic_types",
        ],
        // The OTLP exporter is configured with tonic's types.
        places: &[
            "bench/",
            "crates/common/src/rpc",
            "crates/common/src/telemetry/export",
            "crates/contracts/",
            "crates/testkit/",
            "services/*/src/api",
        ],
        instead: "gRPC types stay in common::rpc and a service's api; pass what they carry",
    },
    Kept {
        words: &["curl", "hyper_tls", "isahc", "reqwest", "ureq"],
        places: &["crates/egress/src/"],
        instead: "egress makes the one HTTP client",
    },
    Kept {
        words: &["anyhow"],
        places: &[
            "bench/",
            "services/*/src/main.rs",
            "services/hawser/",
            "crates/testkit/",
            "crates/provider-sim/",
            "e2e/",
        ],
        instead: "an error is an enum of its layer; anyhow is for main and tests",
    },
];

/// Types of `common::pg` that stay in a service's store. A use case holds a `Tx`, since it owns the transaction's
/// borders, and only hands it on: what it says to the database is said by the store.
const STORE_TYPES: &[&str] = &["FromSql", "Json", "Row", "ToSql", "Type"];
const STORE_CALLS: &[&str] = &["execute", "query", "query_one", "query_opt"];

/// What a statement that has to run on a sharded database, behind a pooler, cannot rely on.
const UNSHARDABLE: &[&str] = &[
    "currval",
    "listen",
    "nextval",
    "notify",
    "pg_advisory_lock",
    "pg_advisory_xact_lock",
    "pg_notify",
    "set_config",
];

#[test]
fn words_stay_where_they_belong() {
    let mut violations = Vec::new();
    for file in sources() {
        let code = code(&file.text);
        for kept in KEPT
            .iter()
            .filter(|kept| !kept.places.iter().any(|place| lies_in(&file.path, place)))
        {
            for (line, word) in words(&code).filter(|(_, word)| kept.words.contains(word)) {
                violations.push(format!("{}:{line}: `{word}`; {}", file.path, kept.instead));
            }
        }
    }
    none(&violations);
}

#[test]
fn http_clients_are_made_by_egress_alone() {
    let mut violations = Vec::new();
    // The simulated provider is not ours to guard.
    for file in sources().iter().filter(|file| {
        !file.path.starts_with("crates/egress/") && !file.path.starts_with("crates/provider-sim/")
    }) {
        let code = code(&file.text);
        for (number, line) in code.lines().enumerate() {
            if ["hyper::client", "hyper_util::client"]
                .iter()
                .any(|client| line.contains(client))
            {
                violations.push(format!(
                    "{}:{}: a hyper client; egress makes the one HTTP client",
                    file.path,
                    number + 1
                ));
            }
        }
    }
    none(&violations);
}

#[test]
fn database_types_stay_in_stores() {
    let mut violations = Vec::new();
    for file in sources().iter().filter(|file| {
        file.path.starts_with("services/") && !lies_in(&file.path, "services/*/src/store")
    }) {
        let code = code(&file.text);
        for name in STORE_TYPES {
            if code.contains(&format!("pg::{name}"))
                || imported_from_pg(&code).any(|word| word == *name)
            {
                violations.push(format!(
                    "{}: pg::{name}; give the store a function that says what it does",
                    file.path
                ));
            }
        }
        for (number, line) in code.lines().enumerate() {
            let calls = |receiver: &str| {
                STORE_CALLS
                    .iter()
                    .any(|call| line.contains(&format!("{receiver}.{call}(")))
            };
            if ["database", "db", "tx"].into_iter().any(calls) {
                violations.push(format!(
                    "{}:{}: a statement; put it into the store",
                    file.path,
                    number + 1
                ));
            }
            if lies_in(&file.path, "services/*/src/api")
                && words(line).any(|(_, word)| word == "Tx")
            {
                violations.push(format!(
                    "{}:{}: a transaction; its borders are the use case's",
                    file.path,
                    number + 1
                ));
            }
        }
        // A statement begins with its name: `-- vault.grant_get`.
        for (number, line) in file.text.lines().enumerate() {
            let line = line.trim_start();
            if line.starts_with("-- ") || line.contains("\"-- ") {
                violations.push(format!(
                    "{}:{}: SQL; put it into the store",
                    file.path,
                    number + 1
                ));
            }
        }
    }
    none(&violations);
}

#[test]
fn statements_keep_to_what_shards() {
    let mut violations = Vec::new();
    for file in sources()
        .iter()
        .filter(|file| lies_in(&file.path, "services/*/src/store"))
    {
        for (line, word) in words(&file.text)
            .filter(|(_, word)| UNSHARDABLE.contains(&word.to_lowercase().as_str()))
        {
            violations.push(format!(
                "{}:{line}: `{word}`; it works on one server, without a pooler, only",
                file.path
            ));
        }
    }
    none(&violations);
}

#[test]
fn tests_wait_for_conditions_and_not_for_time() {
    let mut violations = Vec::new();
    for file in tree::files("", ".rs")
        .iter()
        .filter(|file| file.path.contains("/tests/"))
    {
        for line in sleeps_outside_of_loops(&code(&file.text)) {
            violations.push(format!(
                "{}:{line}: a sleep; wait for the condition with testkit's `eventually`",
                file.path
            ));
        }
    }
    none(&violations);
}

#[test]
fn a_main_only_hands_over() {
    let mains: Vec<_> = sources()
        .into_iter()
        .filter(|file| file.path.ends_with("/src/main.rs"))
        .collect();
    let long = mains
        .iter()
        .filter(|file| file.path.starts_with("services/") && file.text.lines().count() > 30);
    none(
        &long
            .map(|file| {
                format!(
                    "{}: longer than 30 lines; put the rest into the library",
                    file.path
                )
            })
            .collect::<Vec<_>>(),
    );
}

/// Every source file that is built into something.
fn sources() -> Vec<File> {
    let files: Vec<_> = tree::files("", ".rs")
        .into_iter()
        .filter(|file| file.path.contains("/src/") && !file.path.ends_with("/tests.rs"))
        .collect();
    assert!(files.len() > 20, "the sources are not found any more");
    files
}

/// Whether the path begins with the place, in which a `*` stands for one name.
fn lies_in(path: &str, place: &str) -> bool {
    match place.split_once('*') {
        None => path.starts_with(place),
        Some((before, after)) => path
            .strip_prefix(before)
            .and_then(|rest| rest.split_once('/'))
            .is_some_and(|(_, rest)| format!("/{rest}").starts_with(after)),
    }
}

/// A sleep between two looks at a condition is how one waits for it, and paused time passes at once; any other is a guess.
fn sleeps_outside_of_loops(code: &str) -> Vec<usize> {
    let mut found = Vec::new();
    let mut loops = Vec::new();
    let mut head = String::new();
    let mut paused = false;
    for (number, line) in code.lines().enumerate() {
        if line.starts_with("#[") && line.contains("test") {
            paused = line.contains("start_paused");
        }
        for character in line.chars().chain(['\n']) {
            match character {
                '{' => loops.push(words(&head).any(|(_, word)| matches!(word, "loop" | "while"))),
                '}' => drop(loops.pop()),
                _ => {}
            }
            if matches!(character, '{' | '}' | ';') {
                head.clear();
            } else {
                head.push(character);
            }
            if character == '('
                && words(&head).last().is_some_and(|(_, word)| word == "sleep")
                && !loops.contains(&true)
                && !paused
            {
                found.push(number + 1);
            }
        }
    }
    found
}

/// The names in `use common::pg::{…};`.
fn imported_from_pg(code: &str) -> impl Iterator<Item = &str> {
    code.split("pg::{").skip(1).flat_map(|group| {
        let end = group.find(';').unwrap_or(group.len());
        words(&group[..end]).map(|(_, word)| word)
    })
}

#[test]
fn a_place_may_stand_for_many() {
    assert!(lies_in(
        "services/token-vault/src/store/grants.rs",
        "services/*/src/store"
    ));
    assert!(lies_in(
        "services/token-vault/src/store.rs",
        "services/*/src/store"
    ));
    assert!(!lies_in(
        "services/token-vault/src/app.rs",
        "services/*/src/store"
    ));
    assert!(!lies_in(
        "crates/worker/src/store.rs",
        "services/*/src/store"
    ));
    assert_eq!(
        imported_from_pg("use common::pg::{Database, Tx};\nfn f() {}").collect::<Vec<_>>(),
        ["Database", "Tx"]
    );
}

#[test]
fn a_sleep_in_a_loop_is_a_wait() {
    let code = "fn a() {\n while b() {\n  sleep(c);\n }\n sleep(d);\n}\nfn e() {\n sleep(f)\n}";
    assert_eq!(sleeps_outside_of_loops(code), [5, 8]);
    let paused = "#[tokio::test(start_paused = true)]\nfn a() {\n sleep(b);\n}\n#[test]\nfn c() {\n sleep(d);\n}";
    assert_eq!(sleeps_outside_of_loops(paused), [7]);
}
