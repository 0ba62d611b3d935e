//! The pages that a user sees: plain HTML that works without JavaScript, by keyboard, and with a screen reader.

use std::fmt::Write as _;

use super::authorize::Pending;
use crate::config::{ProviderConfig, UserConfig};

/// No script, nothing from elsewhere, in no frame. `form-action` is left open: browsers apply it to the redirect back to the client too.
pub(super) const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";

const STYLE: &str = "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:3rem auto;padding:0 1rem}\
fieldset{margin:1rem 0;padding:.75rem 1rem}label{display:block;padding:.25rem 0}button{font:inherit;padding:.5rem 1.25rem;margin-right:.5rem}";

pub(super) fn render(
    provider: &ProviderConfig,
    users: &[UserConfig],
    pending: &Pending,
    id: &str,
    csrf: &str,
) -> String {
    let name = escape(&provider.display_name);
    let client = escape(&pending.client_id);
    let mut form = String::new();
    let chosen = pending.login_hint.as_deref();
    let chosen = users
        .iter()
        .find(|user| chosen.is_some_and(|hint| hint == user.key || hint == user.email))
        .or(users.first());
    for user in users {
        let checked = if chosen.is_some_and(|chosen| chosen.key == user.key) {
            " checked"
        } else {
            ""
        };
        let (key, who, email) = (escape(&user.key), escape(&user.name), escape(&user.email));
        let _ = writeln!(
            form,
            "<label><input type=\"radio\" name=\"user\" value=\"{key}\"{checked} required> {who} ({email})</label>"
        );
    }
    let mut scopes = String::new();
    for scope in &pending.scope {
        let scope = escape(scope);
        if provider.granular_consent {
            let _ = writeln!(
                scopes,
                "<label><input type=\"checkbox\" name=\"scope\" value=\"{scope}\" checked> {scope}</label>"
            );
        } else {
            let _ = writeln!(scopes, "<li>{scope}</li>");
        }
    }
    let scopes = match (pending.scope.is_empty(), provider.granular_consent) {
        (true, _) => "<p>It will have the access that your account has.</p>".to_owned(),
        (false, true) => format!("<fieldset><legend>What it may do</legend>\n{scopes}</fieldset>"),
        (false, false) => format!("<p>It asks for:</p>\n<ul>\n{scopes}</ul>"),
    };
    let path = escape(&provider.path);
    document(
        &format!("Allow access – {name}"),
        &format!(
            "<h1>Allow access to your account?</h1>\n\
             <p>The application <strong>{client}</strong> asks for access to your account at {name}.</p>\n\
             <form method=\"post\" action=\"{path}/oauth/authorize\">\n\
             <input type=\"hidden\" name=\"request\" value=\"{id}\">\n\
             <input type=\"hidden\" name=\"csrf\" value=\"{csrf}\">\n\
             <fieldset><legend>Log in as</legend>\n{form}</fieldset>\n\
             {scopes}\n\
             <p><button type=\"submit\" name=\"decision\" value=\"allow\">Allow</button>\n\
             <button type=\"submit\" name=\"decision\" value=\"deny\">Deny</button></p>\n\
             </form>\n<p><small>This is a simulated provider. Nothing here is real.</small></p>"
        ),
    )
}

/// OAuth 2.0 Form Post Response Mode, with a button where the specification's example has a script.
pub(super) fn form_post(action: &str, fields: &[(&str, String)]) -> String {
    let mut inputs = String::new();
    for (name, value) in fields {
        let _ = writeln!(
            inputs,
            "<input type=\"hidden\" name=\"{}\" value=\"{}\">",
            escape(name),
            escape(value)
        );
    }
    let action = escape(action);
    document(
        "Back to the application",
        &format!(
            "<h1>Back to the application</h1>\n<form method=\"post\" action=\"{action}\">\n{inputs}\
             <p><button type=\"submit\">Continue</button></p>\n</form>"
        ),
    )
}

/// Where a person types in the code that another device shows.
pub(super) fn device(provider: &ProviderConfig, users: &[UserConfig], code: &str) -> String {
    let name = escape(&provider.display_name);
    let mut people = String::new();
    for (at, user) in users.iter().enumerate() {
        let checked = if at == 0 { " checked" } else { "" };
        let (key, who) = (escape(&user.key), escape(&user.name));
        let _ = writeln!(
            people,
            "<label><input type=\"radio\" name=\"user\" value=\"{key}\"{checked} required> {who}</label>"
        );
    }
    let (path, code) = (escape(&provider.path), escape(code));
    document(
        &format!("Connect a device – {name}"),
        &format!(
            "<h1>Connect a device</h1>\n<form method=\"post\" action=\"{path}/device\">\n\
             <p><label>The code on your device <input name=\"user_code\" value=\"{code}\" required></label></p>\n\
             <fieldset><legend>Log in as</legend>\n{people}</fieldset>\n\
             <p><button type=\"submit\" name=\"decision\" value=\"allow\">Allow</button>\n\
             <button type=\"submit\" name=\"decision\" value=\"deny\">Deny</button></p>\n</form>"
        ),
    )
}

pub(super) fn device_done() -> String {
    document(
        "Done",
        "<h1>Done</h1>\n<p>You can go back to your device.</p>",
    )
}

pub(super) fn refusal(description: &str) -> String {
    document(
        "Request refused",
        &format!(
            "<h1>This request was refused</h1>\n<p>{}</p>",
            escape(description)
        ),
    )
}

fn document(title: &str, main: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<main>\n{main}\n</main>\n</body>\n</html>\n"
    )
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
