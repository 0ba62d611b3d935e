//! What the browser brings back.

use common::Secret;
use thiserror::Error;

use crate::text;

/// The parameters of an authorization response (RFC 6749, 4.1.2), from the query or a posted form.
#[derive(Clone, Debug)]
pub struct Callback {
    /// To be looked up, and used up, before anything else is believed.
    pub state: Secret<String>,
    /// The issuer that answers (RFC 9207).
    pub issuer: Option<String>,
    /// The code, or why there is none.
    pub outcome: Result<Secret<String>, CallbackProblem>,
}

/// Why an authorization response is of no use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallbackProblem {
    /// There is no `state`, so it answers no request of ours.
    #[error("the response carries no state")]
    Unsolicited,
    /// A parameter occurs twice (RFC 6749, 3.1).
    #[error("the response carries a parameter twice")]
    Repeated,
    /// Neither a code nor an error.
    #[error("the response carries neither a code nor an error")]
    Empty,
    /// Another issuer answers than was asked, or none says who it is although it must.
    #[error("the response comes from another issuer")]
    Issuer,
    /// The person said no.
    #[error("the person declined")]
    Declined,
    /// The provider refused; its words are for the operator's log alone.
    #[error("the provider refused: {code}")]
    Refused {
        /// The provider's code.
        code: String,
        /// The provider's description, cut and cleaned.
        description: Option<String>,
    },
}

impl Callback {
    /// Reads the parameters.
    ///
    /// # Errors
    ///
    /// Where it answers no request of ours, or is ambiguous.
    pub fn parse<'a>(
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, CallbackProblem> {
        let names = [
            "state",
            "code",
            "error",
            "error_description",
            "error_subcode",
            "iss",
        ];
        let mut found = [None; 6];
        for (name, value) in parameters {
            let Some(at) = names.iter().position(|known| *known == name) else {
                continue;
            };
            if found[at].replace(value).is_some() {
                return Err(CallbackProblem::Repeated);
            }
        }
        let [state, code, error, description, subcode, issuer] =
            found.map(|value| value.filter(|value| !value.is_empty()));
        let outcome = match (error, code) {
            (Some("access_denied"), _) => Err(CallbackProblem::Declined),
            (Some(_), _) if subcode == Some("cancel") => Err(CallbackProblem::Declined),
            (Some(error), _) => Err(CallbackProblem::Refused {
                code: text::code(error, &[]).unwrap_or_else(|| "unknown_error".to_owned()),
                description: description
                    .and_then(|description| text::description(description, &[])),
            }),
            (None, Some(code)) => Ok(Secret::from(code)),
            (None, None) => Err(CallbackProblem::Empty),
        };
        Ok(Self {
            state: Secret::from(state.ok_or(CallbackProblem::Unsolicited)?),
            issuer: issuer.map(str::to_owned),
            outcome,
        })
    }

    /// Compares the issuer with the one that was asked (RFC 9207, 2.4), after the state was found good. `announced` says
    /// that the issuer's metadata promises `iss` in every response.
    ///
    /// # Errors
    ///
    /// Where they differ, or a promised one is missing.
    pub fn check_issuer(
        &self,
        expected: Option<&str>,
        announced: bool,
    ) -> Result<(), CallbackProblem> {
        match (&self.issuer, expected) {
            (Some(issuer), Some(expected)) if issuer != expected => Err(CallbackProblem::Issuer),
            (None, _) if announced => Err(CallbackProblem::Issuer),
            _ => Ok(()),
        }
    }
}
