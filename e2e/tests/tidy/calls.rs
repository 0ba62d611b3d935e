//! Who calls whom: `deploy/call-graph.toml`, what the sources name, and what the policy allows are the same thing.

use std::collections::{BTreeMap, BTreeSet};

use crate::none;
use crate::rust::{code, words};
use crate::tree::{self, Package};

/// Packages that are nobody's own: messages that all share, and what every service serves about itself.
const SHARED: &[&str] = &["hawser.common.v1", "hawser.operations.v1"];

struct Graph {
    /// By protobuf package, who serves it.
    servers: BTreeMap<String, String>,
    /// By caller, whom it may call.
    calls: BTreeMap<String, BTreeSet<String>>,
}

#[test]
fn the_graph_has_every_service_and_no_circle() {
    let graph = graph();
    let mut violations = Vec::new();
    for service in tree::packages()
        .values()
        .filter(|package| package.is_service() && package.name != "hawser")
    {
        if !graph.calls.contains_key(&service.name) {
            violations.push(format!(
                "deploy/call-graph.toml: {} is missing in [calls]",
                service.name
            ));
        }
    }
    for package in proto_services()
        .values()
        .filter(|package| !SHARED.contains(&package.as_str()))
    {
        if !graph.servers.contains_key(package) {
            violations.push(format!("deploy/call-graph.toml: nobody serves {package}"));
        }
    }

    // Take away who calls nobody that is left, until nobody is left, or only circles are.
    let mut left = graph.calls.clone();
    while let Some(leaf) = left
        .iter()
        .find(|(_, callees)| callees.iter().all(|callee| !left.contains_key(callee)))
        .map(|(name, _)| name.clone())
    {
        left.remove(&leaf);
    }
    if !left.is_empty() {
        violations.push(format!(
            "deploy/call-graph.toml: a circle among {:?}",
            left.keys().collect::<Vec<_>>()
        ));
    }
    none(&violations);
}

#[test]
fn services_name_only_clients_of_whom_they_may_call() {
    let graph = graph();
    let packages = tree::packages();
    let clients: BTreeMap<String, String> = proto_services()
        .into_iter()
        .filter_map(|(service, package)| {
            Some((
                format!("{service}Client"),
                graph.servers.get(&package)?.clone(),
            ))
        })
        .collect();
    assert!(
        clients.contains_key("TokenVaultServiceClient"),
        "the contracts are not found any more"
    );

    let mut violations = Vec::new();
    for service in packages
        .values()
        .filter(|package| package.is_service() && package.name != "hawser")
    {
        let allowed = &graph.calls[&service.name];
        let mut built = service.closure(&packages);
        // It asks the directory about API keys, for those services that take any; the policy's rows say which.
        built.remove("common");
        built.insert(service.name.clone());
        for package in built.iter().map(|name| &packages[name]) {
            for (path, line, client) in named_clients(package, &clients) {
                let callee = &clients[&client];
                if callee != &service.name && !allowed.contains(callee) {
                    violations.push(format!(
                        "{path}:{line}: {client}; {} may not call {callee}",
                        service.name
                    ));
                }
            }
        }
    }
    none(&violations);
}

#[test]
fn the_policy_allows_the_graph_and_nothing_else() {
    let graph = graph();
    let policy = tree::parse("deploy/policy.toml");
    let rows = policy["allow"].as_array().expect("[[allow]] rows");
    let mut allowed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut violations = Vec::new();
    for row in rows {
        let callers =
            strings(&row["callers"]).filter_map(|caller| caller.strip_prefix("spiffe://hawser/"));
        for caller in callers.filter(|caller| graph.calls.contains_key(*caller)) {
            for method in strings(&row["methods"]).filter(|method| method.starts_with("hawser.")) {
                let reached: Vec<_> = graph
                    .servers
                    .iter()
                    .filter(|(package, _)| covers(method, package))
                    .map(|(_, server)| server.as_str())
                    .collect();
                for callee in &reached {
                    if !graph.calls[caller].contains(*callee) {
                        violations.push(format!("deploy/policy.toml: {caller} may call {method}, and the graph has no such edge"));
                    }
                }
                allowed.entry(caller).or_default().extend(reached);
            }
        }
    }
    for (caller, callees) in &graph.calls {
        for callee in callees {
            if !allowed
                .get(caller.as_str())
                .is_some_and(|allowed| allowed.contains(callee.as_str()))
            {
                violations.push(format!(
                    "deploy/policy.toml: no row lets {caller} call {callee}, as the graph says"
                ));
            }
        }
    }
    none(&violations);
}

fn graph() -> Graph {
    let file = tree::parse("deploy/call-graph.toml");
    let table = |name: &str| {
        file[name]
            .as_table()
            .unwrap_or_else(|| panic!("[{name}]"))
            .clone()
    };
    let servers = table("serves")
        .into_iter()
        .map(|(service, package)| (package.as_str().expect("a package").to_owned(), service));
    let calls = table("calls")
        .into_iter()
        .map(|(caller, callees)| (caller, strings(&callees).map(str::to_owned).collect()));
    Graph {
        servers: servers.collect(),
        calls: calls.collect(),
    }
}

/// Every service of the contracts, with its package.
fn proto_services() -> BTreeMap<String, String> {
    let mut services = BTreeMap::new();
    for file in tree::files("proto", ".proto") {
        let package = file
            .text
            .lines()
            .find_map(|line| line.strip_prefix("package "))
            .expect("buf has read it")
            .trim_end_matches(';');
        for line in file
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("service "))
        {
            let name = line.split_whitespace().next().expect("buf has read it");
            services.insert(name.to_owned(), package.to_owned());
        }
    }
    services
}

fn named_clients(
    package: &Package,
    clients: &BTreeMap<String, String>,
) -> Vec<(String, usize, String)> {
    let mut named = Vec::new();
    for file in tree::files(&format!("{}/src", package.folder), ".rs") {
        let code = code(&file.text);
        let found = words(&code).filter(|(_, word)| clients.contains_key(*word));
        named.extend(found.map(|(line, word)| (file.path.clone(), line, word.to_owned())));
    }
    named
}

fn strings(value: &toml::Value) -> impl Iterator<Item = &str> {
    value
        .as_array()
        .expect("a list")
        .iter()
        .map(|value| value.as_str().expect("a string"))
}

/// Whether a row's method, with a `*` at its end or none, is about some method of the package.
fn covers(method: &str, package: &str) -> bool {
    let (prefix, _) = method.split_once('*').unwrap_or((method, ""));
    prefix.starts_with(&format!("{package}."))
        || method.ends_with('*') && package.starts_with(prefix.trim_end_matches('.'))
}

#[test]
fn a_method_belongs_to_its_package() {
    assert!(covers(
        "hawser.vault.v1.TokenVaultService/GetCredential",
        "hawser.vault.v1"
    ));
    assert!(covers(
        "hawser.vault.v1.TokenVaultService/*",
        "hawser.vault.v1"
    ));
    assert!(covers("hawser.*", "hawser.vault.v1"));
    assert!(!covers(
        "hawser.broker.v1.ConnectService/*",
        "hawser.vault.v1"
    ));
}
