//! Documents: what the ledger has, what comes in, and what becomes of the one by the other.

use common::TenantKey;
use time::OffsetDateTime;
use uuid::Uuid;

/// A stream of documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamName {
    pub(crate) tenant: TenantKey,
    /// Nil for what people upload and the API brings.
    pub(crate) connection_id: Uuid,
    pub(crate) external_account_id: String,
    pub(crate) stream: String,
}

/// How a document came in; the numbers are the contract's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub(crate) enum Method {
    /// A job read it from a provider.
    OauthSync = 1,
    /// A person gave it.
    ManualUpload = 2,
    /// A program of the host application gave it.
    Api = 3,
    /// It was in a webhook.
    Webhook = 4,
}

/// Who brought a document in, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attribution {
    pub(crate) user_id: String,
    pub(crate) user_email: String,
    pub(crate) method: Method,
}

/// What a document says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) title: String,
    pub(crate) json: Vec<u8>,
    /// SHA-256 over the canonical JSON.
    pub(crate) hash: Vec<u8>,
    pub(crate) url: String,
}

/// A document that comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Incoming {
    pub(crate) external_id: String,
    /// `None` where the provider no longer has it.
    pub(crate) content: Option<Content>,
    pub(crate) source_updated_at: Option<OffsetDateTime>,
    pub(crate) by: Attribution,
}

/// What the ledger has of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) document_id: Uuid,
    pub(crate) content: Content,
    pub(crate) source_updated_at: Option<OffsetDateTime>,
    pub(crate) by: Attribution,
    pub(crate) job_id: String,
    pub(crate) first_ingested_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
    pub(crate) deleted_at: Option<OffsetDateTime>,
    pub(crate) revision: i64,
}

/// A document as it is read.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) stream: StreamName,
    pub(crate) stream_key: Uuid,
    pub(crate) place: i64,
    pub(crate) external_id: String,
    pub(crate) held: Held,
}

/// What becomes of the ledger by a document that comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It is new.
    Insert,
    /// It says something else than before, or is there again.
    Update,
    /// The provider no longer has it.
    Delete,
    /// It says what is known, and is no older.
    Same,
    /// It is older than what is known.
    Older,
}

/// Judges a document by what the ledger has of it: its content's hash, and whether it is deleted, among it.
pub(crate) fn judge(held: Option<&Held>, incoming: &Incoming) -> Judgement {
    let Some(held) = held else {
        // A deletion is kept too, so that what is older and comes late stays deleted.
        return match incoming.content {
            Some(_) => Judgement::Insert,
            None => Judgement::Delete,
        };
    };
    if let (Some(known), Some(said)) = (held.source_updated_at, incoming.source_updated_at)
        && said < known
    {
        return Judgement::Older;
    }
    match (&incoming.content, held.deleted_at) {
        (None, None) => Judgement::Delete,
        (None, Some(_)) => Judgement::Same,
        (Some(content), None) if says_the_same(&held.content, content) => Judgement::Same,
        (Some(_), _) => Judgement::Update,
    }
}

fn says_the_same(held: &Content, incoming: &Content) -> bool {
    held.hash == incoming.hash && held.title == incoming.title && held.url == incoming.url
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const T1: OffsetDateTime = datetime!(2026-01-01 0:00 UTC);
    const T2: OffsetDateTime = datetime!(2026-01-02 0:00 UTC);

    fn content(hash: u8) -> Content {
        Content {
            title: "t".to_owned(),
            json: b"{}".to_vec(),
            hash: vec![hash],
            url: String::new(),
        }
    }

    fn by() -> Attribution {
        Attribution {
            user_id: "u".to_owned(),
            user_email: String::new(),
            method: Method::OauthSync,
        }
    }

    fn incoming(content: Option<Content>, at: Option<OffsetDateTime>) -> Incoming {
        Incoming {
            external_id: "1".to_owned(),
            content,
            source_updated_at: at,
            by: by(),
        }
    }

    fn held(hash: u8, at: Option<OffsetDateTime>, deleted: bool) -> Held {
        Held {
            document_id: Uuid::nil(),
            content: content(hash),
            source_updated_at: at,
            by: by(),
            job_id: String::new(),
            first_ingested_at: T1,
            updated_at: T1,
            deleted_at: deleted.then_some(T1),
            revision: 1,
        }
    }

    #[test]
    fn what_is_new_is_inserted_and_its_deletion_is_remembered() {
        assert_eq!(
            judge(None, &incoming(Some(content(1)), None)),
            Judgement::Insert
        );
        assert_eq!(judge(None, &incoming(None, Some(T1))), Judgement::Delete);
    }

    #[test]
    fn older_never_comes_over_newer() {
        for deleted in [false, true] {
            let held = held(1, Some(T2), deleted);
            assert_eq!(
                judge(Some(&held), &incoming(Some(content(2)), Some(T1))),
                Judgement::Older
            );
            assert_eq!(
                judge(Some(&held), &incoming(None, Some(T1))),
                Judgement::Older
            );
        }
    }

    #[test]
    fn without_both_times_the_later_call_counts() {
        let incoming = incoming(Some(content(2)), None);
        assert_eq!(
            judge(Some(&held(1, Some(T2), false)), &incoming),
            Judgement::Update
        );
        let incoming = super::Incoming {
            source_updated_at: Some(T1),
            ..incoming
        };
        assert_eq!(
            judge(Some(&held(1, None, false)), &incoming),
            Judgement::Update
        );
    }

    #[test]
    fn the_same_is_left_alone_and_the_deleted_comes_back() {
        let said = incoming(Some(content(1)), Some(T2));
        assert_eq!(
            judge(Some(&held(1, Some(T1), false)), &said),
            Judgement::Same
        );
        assert_eq!(
            judge(Some(&held(1, Some(T1), true)), &said),
            Judgement::Update
        );
        assert_eq!(
            judge(Some(&held(1, Some(T1), true)), &incoming(None, Some(T2))),
            Judgement::Same
        );
        assert_eq!(
            judge(Some(&held(1, Some(T1), false)), &incoming(None, Some(T2))),
            Judgement::Delete
        );
        let renamed = Content {
            title: "another".to_owned(),
            ..content(1)
        };
        assert_eq!(
            judge(Some(&held(1, None, false)), &incoming(Some(renamed), None)),
            Judgement::Update
        );
    }
}
