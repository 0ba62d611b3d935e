//! The pages' structure.

use contracts::broker::v1::ConnectSessionState;

use super::html::Html;
use super::words::{self, LANGUAGE, Words};
use crate::session::Session;

/// The page that waits for the person's word.
#[derive(Clone, Debug)]
pub(crate) struct Consent<'a> {
    pub(crate) product: &'a str,
    pub(crate) tenant: &'a str,
    pub(crate) user: &'a str,
    pub(crate) support: &'a str,
    pub(crate) csrf: &'a str,
    /// Integrations to choose among, and what their providers are called.
    pub(crate) choices: &'a [(String, String)],
}

/// The page on which one of several accounts is chosen.
#[derive(Clone, Debug)]
pub(crate) struct Choice<'a> {
    pub(crate) product: &'a str,
    pub(crate) provider: &'a str,
    pub(crate) csrf: &'a str,
    /// Ids and names.
    pub(crate) accounts: &'a [(String, String)],
}

/// How a session ended, for the person.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome(pub(crate) Words);

impl Outcome {
    /// What is said of a session that waits for nobody any more.
    pub(crate) fn of(session: &Session, state: ConnectSessionState) -> Self {
        use words::pages as said;
        Self(
            match (state, session.error.as_str(), session.error_reason.as_str()) {
                (ConnectSessionState::Succeeded, ..) => said::SUCCEEDED,
                (ConnectSessionState::AwaitingConfirmation, ..) => said::AWAITING,
                (ConnectSessionState::Expired, ..) | (_, "session_expired", _) => said::EXPIRED,
                (_, "access_denied", _) => said::DECLINED,
                (_, "account_already_connected", _) => said::ALREADY_CONNECTED,
                (_, "other_account", _) => said::OTHER_ACCOUNT,
                (_, _, "INTEGRATION_MISCONFIGURED") => said::MISCONFIGURED,
                (_, "temporarily_unavailable", _) => said::TEMPORARY,
                _ => said::FAILED,
            },
        )
    }
}

/// Names product, company, user and provider, and waits.
pub(crate) fn consent(page: &Consent<'_>) -> String {
    use words::consent as said;
    let row = |html: Html, term: &'static str, text: &str| {
        html.raw("<div><dt>")
            .raw(term)
            .raw("</dt><dd>")
            .text(text)
            .raw("</dd></div>")
    };
    let (title, intro) = match page.choices {
        [(_, provider)] => (
            Html::new()
                .raw(said::TITLE.0)
                .text(provider)
                .raw(said::TITLE.1),
            Html::new()
                .text(page.product)
                .raw(said::ASKS.0)
                .text(provider)
                .raw(said::ASKS.1),
        ),
        _ => (
            Html::new().raw(said::TITLE_OF_SEVERAL),
            Html::new().text(page.product).raw(said::ASKS_FOR_ONE),
        ),
    };
    let mut body = Html::new()
        .raw("<p>")
        .then(&intro)
        .raw("</p><p>")
        .raw(said::FOR_WHOM)
        .raw("</p><dl>");
    body = row(body, said::USER, page.user);
    body = row(body, said::TENANT, page.tenant);
    if let [(_, provider)] = page.choices {
        body = row(body, said::PROVIDER, provider);
    }
    body = body.raw("</dl><p>").raw(said::NEXT).raw("</p>");
    body = form(body, page.csrf);
    for (id, provider) in page.choices {
        body = body
            .raw("<button type=\"submit\" name=\"integration\" value=\"")
            .text(id)
            .raw("\">");
        body = body.raw(said::BUTTON).text(provider).raw("</button>");
    }
    body = body
        .raw("</form><p class=\"small\">")
        .raw(said::NOT_YOU)
        .raw("</p>");
    if !page.support.is_empty() {
        body = body
            .raw("<p class=\"small\">")
            .raw(said::HELP)
            .text(page.support)
            .raw("</p>");
    }
    document(page.product, &title, &body)
}

/// Lists the accounts, none of them chosen beforehand.
pub(crate) fn choose_account(page: &Choice<'_>) -> String {
    use words::choice as said;
    let mut body = Html::new()
        .raw("<p>")
        .raw(said::WHAT.0)
        .text(page.provider)
        .raw(said::WHAT.1)
        .raw("</p>");
    body = form(body, page.csrf)
        .raw("<fieldset><legend>")
        .raw(said::LEGEND)
        .raw("</legend>");
    for (id, name) in page.accounts {
        body = body
            .raw("<label><input type=\"radio\" name=\"account\" required value=\"")
            .text(id)
            .raw("\"> <span>");
        body = body.text(name).raw("</span></label>");
    }
    body = body
        .raw("</fieldset><button type=\"submit\">")
        .raw(said::BUTTON)
        .raw("</button></form>");
    document(page.product, &Html::new().raw(said::TITLE), &body)
}

/// Says something, and what to do.
pub(crate) fn message(product: &str, Outcome(words): Outcome) -> String {
    let body = Html::new()
        .raw("<p>")
        .raw(words.what)
        .raw("</p><p>")
        .raw(words.advice)
        .raw("</p>");
    document(product, &Html::new().raw(words.title), &body)
}

fn form(html: Html, csrf: &str) -> Html {
    html.raw("<form method=\"post\"><input type=\"hidden\" name=\"csrf\" value=\"")
        .text(csrf)
        .raw("\">")
}

fn document(product: &str, title: &Html, body: &Html) -> String {
    Html::new()
        .raw("<!doctype html><html lang=\"")
        .raw(LANGUAGE)
        .raw("\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")
        .raw("<meta name=\"color-scheme\" content=\"light dark\"><meta name=\"robots\" content=\"noindex\"><title>")
        .then(title)
        .raw(" · ")
        .text(product)
        .raw("</title><link rel=\"stylesheet\" href=\"/assets/connect.css\"></head><body><main><p class=\"product\">")
        .text(product)
        .raw("</p><h1>")
        .then(title)
        .raw("</h1>")
        .then(body)
        .raw("</main></body></html>")
        .into_string()
}
