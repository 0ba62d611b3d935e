//! Page tokens: where the page before ended, as text that means nothing to anybody else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::validate::Fields;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The token behind a position.
pub(super) fn encode<T: Serialize>(position: &T) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(position).expect("a position is ids and numbers"))
}

/// The position behind a token; `None` for the first page.
pub(super) fn decode<T: DeserializeOwned>(fields: &mut Fields, token: &str) -> Option<T> {
    if token.is_empty() {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let position = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    fields.check(
        position.is_some(),
        "page_token",
        "must be the next_page_token of the page before",
    );
    position
}
