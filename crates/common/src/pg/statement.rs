//! A statement's name, its text for this schema, and how it is put on the wire.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use deadpool_postgres::ClientWrapper;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Statement};

/// What is known of one SQL text.
pub(super) struct Known {
    /// From the first line, `-- vault.grant_get`.
    pub(super) name: String,
    /// `db.grant.get`.
    pub(super) span: String,
    /// With `{schema}` filled in.
    pub(super) sql: String,
    /// The parameters' types, learnt once; only where statements are not prepared.
    types: OnceLock<Vec<Type>>,
}

/// All SQL texts seen so far. There are as many as the source has, so none is ever forgotten.
pub(super) struct Catalogue {
    schema: &'static str,
    prepared: bool,
    known: RwLock<HashMap<String, Arc<Known>>>,
}

/// A statement on a connection, ready to be bound.
pub(super) enum Ready {
    Prepared(Statement),
    Typed(Arc<Known>),
}

pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Catalogue {
    pub(super) fn new(schema: &'static str, prepared: bool) -> Self {
        Self {
            schema,
            prepared,
            known: RwLock::default(),
        }
    }

    pub(super) fn get(&self, sql: &str) -> Arc<Known> {
        if let Some(known) = self
            .known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(sql)
        {
            return Arc::clone(known);
        }
        let name = name_of(sql).replace("{schema}", self.schema);
        let known = Arc::new(Known {
            span: span_of(&name),
            name,
            sql: sql.replace("{schema}", self.schema),
            types: OnceLock::new(),
        });
        let mut all = self.known.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(sql.to_owned()).or_insert(known))
    }

    /// Makes a statement ready; without a round trip where it has been seen before.
    pub(super) async fn ready(
        &self,
        client: &ClientWrapper,
        known: &Arc<Known>,
    ) -> Result<Ready, tokio_postgres::Error> {
        if self.prepared {
            return Ok(Ready::Prepared(client.prepare_cached(&known.sql).await?));
        }
        if known.types.get().is_none() {
            // Prepared, looked at, and closed within the transaction, which a pooler keeps on one server.
            let statement = client.prepare(&known.sql).await?;
            let _ = known.types.set(statement.params().to_vec());
        }
        Ok(Ready::Typed(Arc::clone(known)))
    }
}

impl Ready {
    pub(super) async fn query(
        &self,
        client: &ClientWrapper,
        params: Params<'_>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        match self {
            Self::Prepared(statement) => client.query(statement, params).await,
            Self::Typed(known) => client.query_typed(&known.sql, &typed(known, params)).await,
        }
    }

    pub(super) async fn execute(
        &self,
        client: &ClientWrapper,
        params: Params<'_>,
    ) -> Result<u64, tokio_postgres::Error> {
        match self {
            Self::Prepared(statement) => client.execute(statement, params).await,
            Self::Typed(known) => {
                client
                    .execute_typed(&known.sql, &typed(known, params))
                    .await
            }
        }
    }
}

fn typed<'a>(known: &Known, params: Params<'a>) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    let types = known.types.get().map(Vec::as_slice).unwrap_or_default();
    params.iter().copied().zip(types.iter().cloned()).collect()
}

fn name_of(sql: &str) -> &str {
    sql.trim_start()
        .strip_prefix("-- ")
        .and_then(|rest| rest.lines().next())
        .map_or("unnamed", str::trim)
}

/// `vault.grant_get` → `db.grant.get`.
fn span_of(name: &str) -> String {
    let local = name.split_once('.').map_or(name, |(_, local)| local);
    match local.rsplit_once('_') {
        Some((noun, verb)) => format!("db.{noun}.{verb}"),
        None => format!("db.{local}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_the_statement() {
        let known = Catalogue::new("vault", true)
            .get("-- {schema}.refresh_intent_open\nSELECT 1 FROM {schema}.intents");
        assert_eq!(known.name, "vault.refresh_intent_open");
        assert_eq!(known.span, "db.refresh_intent.open");
        assert_eq!(
            known.sql,
            "-- vault.refresh_intent_open\nSELECT 1 FROM vault.intents"
        );
        assert_eq!(
            Catalogue::new("vault", true).get("SELECT 1").name,
            "unnamed"
        );
    }
}
