//! The catalogue as its users see it.

mod builtin;
mod files;
mod overrides;
mod templates;
