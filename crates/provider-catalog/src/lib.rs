//! Providers as data: where their endpoints are, which habits they have, who the user is there and which accounts there
//! are, and how sure we are of all that.
//!
//! Each file in `catalog/` is one [`Provider`]. The build refuses a file that does not fit the schema, and says file, line
//! and field; at run time the entries are there, parsed once. An integration may replace values of its own
//! ([`Provider::with_overrides`]), and the result is a [`ResolvedProvider`], which fills in parameters and gives URLs.
//!
//! Pure: no network, no storage, no secrets. What an answer of a token endpoint means is `oauth-client`'s; which streams a
//! provider has is `connectors`'.

mod catalog;
mod read;
mod resolved;
mod schema;

pub use catalog::Catalog;
pub use read::{Account, Person};
pub use resolved::{Captured, Renewal, ResolvedProvider};
pub use schema::*;
