use std::time::Duration;

use provider_catalog::{AuthMode, Catalog, Provider, RefreshStrategy, ReplayWindow};

fn word(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).expect("a word");
    value.as_str().unwrap_or_default().to_owned()
}

fn days(duration: Option<Duration>) -> String {
    duration.map_or_else(String::new, |life| format!("{} d", life.as_secs() / 86_400))
}

fn row(provider: &Provider) -> String {
    let refresh = &provider.refresh;
    let is_oauth2 = provider.auth_modes.iter().any(|mode| mode.is_oauth2());
    let rotation = match refresh.rotates {
        _ if !is_oauth2 || refresh.strategy != RefreshStrategy::RefreshToken => "",
        Some(true) => "yes",
        Some(false) => "no",
        None => "not known",
    };
    let replay = match refresh.replay_window {
        ReplayWindow::None => String::new(),
        ReplayWindow::For(window) => format!("{} min", window.as_secs() / 60),
        ReplayWindow::UntilSuccessorIsUsed => "until the next is used".to_owned(),
        ReplayWindow::Unlimited => "stay good".to_owned(),
    };
    let ways: Vec<_> = provider
        .auth_modes
        .iter()
        .map(|mode: &AuthMode| word(mode))
        .collect();
    let renewed_by = if is_oauth2 {
        word(&refresh.strategy)
    } else {
        String::new()
    };
    let cells = [
        format!("`{}`", provider.key.as_str()),
        ways.join(", "),
        renewed_by,
        rotation.to_owned(),
        replay,
        days(refresh.idle_lifetime),
        days(refresh.absolute_lifetime),
        word(&provider.confidence),
    ];
    let row = format!("| {} |", cells.join(" | "));
    row.replace("|  |", "| |").replace("|  |", "| |")
}

#[test]
fn the_readme_lists_the_entries_as_they_are() {
    let rows: Vec<_> = Catalog::builtin().iter().map(row).collect();
    let table = rows.join("\n");
    let readme = include_str!("../../README.md");
    assert!(
        readme.contains(&table),
        "README.md has to have this table:\n{table}"
    );
}
