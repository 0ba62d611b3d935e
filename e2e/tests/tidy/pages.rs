//! Documents: what has to have a page has one, and what a page names exists.

use std::collections::BTreeSet;

use crate::rust::{code, words};
use crate::{none, tree};

/// How many lines each user's list has.
const REQUIREMENTS: &[(&str, usize)] = &[
    ("procore", 9),
    ("teamsync", 9),
    ("salesboard", 7),
    ("mailhistory", 5),
    ("basecamp", 5),
];

/// Hosts of package registries, in two halves, so that this file does not name them either.
const REGISTRIES: &[(&str, &str)] = &[
    ("deb.debian", "org"),
    ("files.pythonhosted", "org"),
    ("index.crates", "io"),
    ("proxy.golang", "org"),
    ("pypi", "org"),
    ("registry.npmjs", "org"),
    ("security.debian", "org"),
    ("static.crates", "io"),
];

#[test]
fn each_error_reason_has_its_page() {
    let contract = tree::read("proto/hawser/common/v1/errors.proto");
    let reasons: BTreeSet<_> = contract
        .lines()
        .filter_map(|line| line.trim().strip_prefix("ERROR_REASON_")?.split(' ').next())
        .filter(|reason| *reason != "UNSPECIFIED")
        .collect();
    assert!(
        reasons.contains("SYNC_LOCKED"),
        "the reasons are not found any more"
    );

    let mut violations = Vec::new();
    let pages = tree::files("docs/errors", ".md");
    let index = tree::read("docs/errors/README.md");
    for reason in &reasons {
        let path = format!("docs/errors/{reason}.md");
        match pages.iter().find(|page| page.path == path) {
            None => violations.push(format!("{path} is missing")),
            Some(page) => {
                for part in [
                    &format!("# {reason}\n"),
                    "\n## What the caller does\n",
                    "\n## What the operator does\n",
                ] {
                    if !page.text.contains(part) {
                        violations.push(format!("{path}: {:?} is missing", part.trim()));
                    }
                }
            }
        }
        if !index.contains(&format!("({reason}.md)")) {
            violations.push(format!("docs/errors/README.md: {reason} is missing"));
        }
    }
    for page in &pages {
        let name = page
            .path
            .trim_start_matches("docs/errors/")
            .trim_end_matches(".md");
        if name != "README" && !reasons.contains(name) {
            violations.push(format!("{}: there is no such reason", page.path));
        }
    }
    none(&violations);
}

#[test]
fn requirements_name_tests_that_exist() {
    let page = tree::read("docs/requirements.md");
    let sources = tree::files("", ".rs");
    let mut tests = BTreeSet::new();
    for file in &sources {
        let code = code(&file.text);
        // Unit tests are cut off from the code, so those are looked for in the text.
        let text = if file.path.contains("/tests/") {
            &code
        } else {
            &file.text
        };
        let all: Vec<_> = words(text).map(|(_, word)| word).collect();
        tests.extend(
            all.windows(2)
                .filter(|pair| pair[0] == "fn" && pair[1].starts_with("req_"))
                .map(|pair| pair[1].to_owned()),
        );
    }
    let ids: BTreeSet<_> = REQUIREMENTS
        .iter()
        .flat_map(|(user, lines)| (1..=*lines).map(move |line| format!("{user}_{line:02}")))
        .collect();

    let mut violations = Vec::new();
    let mut named = BTreeSet::new();
    for id in &ids {
        let Some(line) = page
            .lines()
            .find(|line| line.starts_with(&format!("| {id} |")))
        else {
            violations.push(format!("docs/requirements.md: {id} is missing"));
            continue;
        };
        let shown = line
            .trim_end_matches(" |")
            .rsplit(" | ")
            .next()
            .unwrap_or_default();
        let claims: Vec<_> = shown
            .split('`')
            .filter(|word| word.starts_with("req_"))
            .collect();
        if claims.is_empty() && !shown.starts_with("not ") {
            violations.push(format!(
                "docs/requirements.md: {id} names no test and does not say that it is not built"
            ));
        }
        for claim in claims {
            named.insert(claim.to_owned());
            if !claim.starts_with(&format!("req_{id}")) {
                violations.push(format!(
                    "docs/requirements.md: {claim} is a test of another line than {id}"
                ));
            }
            if !tests.contains(claim) {
                violations.push(format!(
                    "docs/requirements.md: {claim} of {id} does not exist"
                ));
            }
        }
    }
    for test in tests.difference(&named) {
        violations.push(format!(
            "docs/requirements.md: `{test}` exists and its line does not name it"
        ));
    }
    none(&violations);
}

#[test]
fn decisions_are_listed() {
    let index = tree::read("docs/adr/README.md");
    let mut violations = Vec::new();
    let decisions = tree::files("docs/adr", ".md");
    let names = decisions
        .iter()
        .map(|file| file.path.trim_start_matches("docs/adr/"));
    for (number, name) in names
        .filter(|name| !matches!(*name, "README.md" | "template.md"))
        .enumerate()
    {
        if !name.starts_with(&format!("{:04}-", number + 1)) {
            violations.push(format!(
                "docs/adr/{name}: its number is not the next one, {:04}",
                number + 1
            ));
        }
        if !index.contains(&format!("({name})")) {
            violations.push(format!("docs/adr/README.md: {name} is missing"));
        }
    }
    none(&violations);
}

#[test]
fn links_lead_somewhere() {
    let mut violations = Vec::new();
    for page in tree::files("", ".md") {
        let folder = tree::root()
            .join(&page.path)
            .parent()
            .expect("a file lies in a folder")
            .to_path_buf();
        let links = page
            .text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')').map(|(link, _)| link));
        for link in links.filter(|link| {
            !link.contains(' ') && !link.contains("://") && !link.starts_with("mailto:")
        }) {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !folder.join(path).exists() {
                violations.push(format!("{}: {link} leads nowhere", page.path));
            }
        }
    }
    none(&violations);
}

#[test]
fn nothing_names_where_it_was_made() {
    let root = tree::root();
    let mut forbidden: Vec<_> = REGISTRIES
        .iter()
        .map(|(host, domain)| format!("{host}.{domain}"))
        .collect();
    // A checkout right below the top may have a name that is also a word.
    if root.components().count() > 2 {
        forbidden.push(root.to_string_lossy().into_owned());
    }
    let mut violations = Vec::new();
    for file in tree::files("", "") {
        for (number, line) in file.text.lines().enumerate() {
            for word in forbidden.iter().filter(|word| line.contains(*word)) {
                violations.push(format!(
                    "{}:{}: {word}; the project names no registry's host and no machine's path",
                    file.path,
                    number + 1
                ));
            }
        }
    }
    none(&violations);
}
