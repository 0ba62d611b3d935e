//! What a person sees. Plain HTML that works without scripts, one style sheet, no third party.

mod html;
mod template;
pub(crate) mod words;

pub(crate) use template::{Choice, Consent, Outcome, choose_account, consent, message};

/// The style sheet that every page uses.
pub(crate) const STYLE: &str = include_str!("pages/connect.css");
