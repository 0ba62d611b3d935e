//! Text that a provider wrote and a person of ours may read.

use common::Secret;

/// Longest description that is kept.
pub(crate) const DESCRIPTION_LIMIT: usize = 256;
/// Longest error code that is kept.
const CODE_LIMIT: usize = 64;

/// A description without control characters and without the secrets that were sent, cut to [`DESCRIPTION_LIMIT`] characters.
pub(crate) fn description(text: &str, secrets: &[Secret<String>]) -> Option<String> {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| secret.expose().len() >= 4) {
        text = text.replace(secret.expose().as_str(), "[secret]");
    }
    let spaced = text.chars().map(|character| {
        if is_unprintable(character) {
            ' '
        } else {
            character
        }
    });
    let cleaned: String = spaced.take(DESCRIPTION_LIMIT).collect();
    let trimmed = cleaned.trim();
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}

/// An error code: one short word of visible ASCII; `None` for anything else, which is no code.
pub(crate) fn code(text: &str, secrets: &[Secret<String>]) -> Option<String> {
    let is_word = !text.is_empty()
        && text.len() <= CODE_LIMIT
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    let is_secret = secrets.iter().any(|secret| secret.expose() == text);
    (is_word && !is_secret).then(|| text.to_owned())
}

/// Control characters, and those that turn the direction of the text around them.
fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}
