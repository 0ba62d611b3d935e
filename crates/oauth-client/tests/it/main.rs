//! What is asked and what answers mean; each test that a line of the OAuth checklist asks for bears the line's number.

mod assertions;
mod authorization;
mod callback;
mod discovery;
mod failures;
mod front;
mod id_token;
mod revocation;
mod robustness;
mod taxonomy;
mod token_request;
mod token_response;
mod world;
