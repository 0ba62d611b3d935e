//! The catalogue as its users see it.

mod builtin;
mod captures;
mod families;
mod files;
mod overrides;
mod readme;
mod templates;
