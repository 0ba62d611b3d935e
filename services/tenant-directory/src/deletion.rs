//! How a tenant or a user ends, over all services.
//!
//! The directory calls nobody. It publishes the deletion's step, waits until every service that has a part in it has
//! reported to be done, and goes on to the next: no job makes documents while they are erased, no grant is used after
//! its keys are gone.

use common::TenantKey;
use time::OffsetDateTime;
use uuid::Uuid;

/// The steps, in order. A step begins when every part of the one before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// No new jobs; running ones are cancelled and have let go.
    StopSyncs = 1,
    /// Subscriptions at providers are deleted.
    EndSubscriptions = 2,
    /// Grants are revoked at providers.
    RevokeGrants = 3,
    /// Connections, documents, events, cursors, schedules and users are erased.
    EraseData = 4,
    /// The tenant's data keys are destroyed.
    ShredKeys = 5,
    /// Nothing is left to do.
    Done = 6,
}

/// A deletion, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub tenant: TenantKey,
    /// The user that ends; `None` for the whole tenant.
    pub user_id: Option<String>,
    /// Whether what the user brought in goes with it.
    pub delete_documents: bool,
    /// Where it is.
    pub step: Step,
    /// What each service has to do, in the order of the steps.
    pub parts: Vec<Part>,
    /// Goes up by one with every step.
    pub revision: i64,
    /// When it was asked for.
    pub created_at: OffsetDateTime,
    /// When it last came to another step.
    pub updated_at: OffsetDateTime,
}

/// What a service has to do in a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// In which step.
    pub step: Step,
    /// Which service.
    pub service: String,
    /// Whether it has.
    pub done: bool,
    /// What it said last.
    pub detail: String,
}

/// What a service says of its part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which service.
    pub service: String,
    /// In which step.
    pub step: Step,
    /// Whether nothing is left to do.
    pub done: bool,
    /// For people.
    pub detail: String,
}

/// A report that is not expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The step has not begun.
    #[error("this step has not begun: wait for `deletion_advanced`")]
    TooEarly,
    /// The service has no part in the step.
    #[error("the service has no part in this step")]
    NoPart,
}

/// The directory's own name among the services.
pub const DIRECTORY: &str = "tenant-directory";

/// Who does what, in order. The vault calls nobody and is not told: the broker, which holds its grants, shreds.
const TENANT_PARTS: &[(Step, &str)] = &[
    (Step::StopSyncs, "sync-scheduler"),
    (Step::EndSubscriptions, "webhook-ingest"),
    (Step::RevokeGrants, "oauth-broker"),
    (Step::EraseData, "oauth-broker"),
    (Step::EraseData, "sync-scheduler"),
    (Step::EraseData, DIRECTORY),
    (Step::EraseData, "webhook-ingest"),
    (Step::ShredKeys, "oauth-broker"),
];
const USER_PARTS: &[(Step, &str)] = &[
    (Step::StopSyncs, "sync-scheduler"),
    (Step::EndSubscriptions, "webhook-ingest"),
    (Step::RevokeGrants, "oauth-broker"),
    (Step::EraseData, "oauth-broker"),
    (Step::EraseData, "sync-scheduler"),
    (Step::EraseData, "webhook-ingest"),
];

impl Deletion {
    /// Of a whole tenant.
    pub fn of_tenant(id: Uuid, tenant: TenantKey, now: OffsetDateTime) -> Self {
        Self::begin(id, tenant, None, true, TENANT_PARTS, now)
    }

    /// Of one user.
    pub fn of_user(
        id: Uuid,
        tenant: TenantKey,
        user_id: &str,
        delete_documents: bool,
        now: OffsetDateTime,
    ) -> Self {
        Self::begin(
            id,
            tenant,
            Some(user_id.to_owned()),
            delete_documents,
            USER_PARTS,
            now,
        )
    }

    fn begin(
        id: Uuid,
        tenant: TenantKey,
        user_id: Option<String>,
        delete_documents: bool,
        parts: &[(Step, &str)],
        now: OffsetDateTime,
    ) -> Self {
        let part = |&(step, service): &(Step, &str)| Part {
            step,
            service: service.to_owned(),
            done: false,
            detail: String::new(),
        };
        Self {
            id,
            tenant,
            user_id,
            delete_documents,
            step: Step::StopSyncs,
            parts: parts.iter().map(part).collect(),
            revision: 1,
            created_at: now,
            updated_at: now,
        }
    }

    /// The deletion after a report, which may bring it to its next step. A part that is done stays done.
    ///
    /// # Errors
    /// [`ReportError`] where the report is not expected.
    pub fn reported(&self, report: &Report, now: OffsetDateTime) -> Result<Self, ReportError> {
        let mut next = self.clone();
        let part = next
            .parts
            .iter_mut()
            .find(|part| part.step == report.step && part.service == report.service);
        let part = part.ok_or(ReportError::NoPart)?;
        if report.step > self.step {
            return Err(ReportError::TooEarly);
        }
        if !part.done {
            part.done = report.done;
            part.detail.clone_from(&report.detail);
        }
        if next.waiting_for().is_empty() && next.step != Step::Done {
            let open = next.parts.iter().find(|part| !part.done);
            next.step = open.map_or(Step::Done, |part| part.step);
            next.revision += 1;
            next.updated_at = now;
        }
        Ok(next)
    }

    /// The services whose reports the present step waits for.
    pub fn waiting_for(&self) -> Vec<&str> {
        let open = self
            .parts
            .iter()
            .filter(|part| part.step == self.step && !part.done);
        open.map(|part| part.service.as_str()).collect()
    }

    /// How far it is, for people: what each service last said.
    pub fn progress(&self) -> String {
        let begun = self.parts.iter().filter(|part| part.step <= self.step);
        let mut services: Vec<&Part> = Vec::new();
        for part in begun {
            services.retain(|earlier| earlier.service != part.service);
            services.push(part);
        }
        let said = services
            .iter()
            .map(|part| format!("{}: {}", part.service, part.said()));
        said.collect::<Vec<_>>().join("; ")
    }

    /// Its resource name.
    pub fn resource(&self) -> String {
        format!("deletions/{}", self.id)
    }

    /// The resource name of whatever ends.
    pub fn subject(&self) -> String {
        self.user_id
            .as_deref()
            .map_or_else(|| format!("tenants/{}", self.tenant), crate::user::resource)
    }
}

impl Part {
    fn said(&self) -> &str {
        match (self.detail.as_str(), self.done) {
            ("", true) => "done",
            ("", false) => "waiting",
            (detail, _) => detail,
        }
    }
}

impl Step {
    const ALL: [Self; 6] = [
        Self::StopSyncs,
        Self::EndSubscriptions,
        Self::RevokeGrants,
        Self::EraseData,
        Self::ShredKeys,
        Self::Done,
    ];

    /// As it is stored, and as the contract numbers it.
    pub fn number(self) -> i16 {
        self as i16
    }

    /// The step of this number.
    pub fn from_number(number: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.number() == number)
    }
}

#[cfg(test)]
mod tests {
    use common::Deps;
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

    fn deletion() -> Deletion {
        let deps = Deps::system("test");
        let tenant = TenantKey::new_tenant(&deps);
        Deletion::of_tenant(tenant.new_id(&deps), tenant, NOW)
    }

    fn done(service: &str, step: Step) -> Report {
        Report {
            service: service.to_owned(),
            step,
            done: true,
            detail: String::new(),
        }
    }

    #[test]
    fn the_parts_are_in_the_order_of_the_steps() {
        for parts in [TENANT_PARTS, USER_PARTS] {
            assert!(parts.is_sorted());
            assert_eq!(parts[0].0, Step::StopSyncs);
        }
    }

    #[test]
    fn a_step_begins_when_all_before_it_is_done() {
        let mut deletion = deletion();
        assert_eq!(deletion.waiting_for(), ["sync-scheduler"]);
        assert_eq!(
            deletion.reported(&done("oauth-broker", Step::RevokeGrants), NOW),
            Err(ReportError::TooEarly)
        );
        assert_eq!(
            deletion.reported(&done("token-vault", Step::StopSyncs), NOW),
            Err(ReportError::NoPart)
        );
        for (step, service) in TENANT_PARTS {
            deletion = deletion
                .reported(&done(service, *step), NOW)
                .expect("it is expected");
        }
        assert_eq!((deletion.step, deletion.revision), (Step::Done, 6));
        assert!(deletion.waiting_for().is_empty());
    }

    #[test]
    fn progress_is_what_each_service_last_said() {
        let mut deletion = deletion();
        for (service, step) in [
            ("sync-scheduler", Step::StopSyncs),
            ("webhook-ingest", Step::EndSubscriptions),
            ("oauth-broker", Step::RevokeGrants),
        ] {
            deletion = deletion
                .reported(&done(service, step), NOW)
                .expect("it is expected");
        }
        let report = Report {
            done: false,
            detail: "12000 documents left".into(),
            ..done("webhook-ingest", Step::EraseData)
        };
        let deletion = deletion.reported(&report, NOW).expect("it is expected");
        assert_eq!(
            deletion.progress(),
            "oauth-broker: waiting; sync-scheduler: waiting; tenant-directory: waiting; webhook-ingest: 12000 documents left"
        );
        assert_eq!(deletion.revision, 4, "saying how far one is begins no step");
    }

    proptest! {
        #[test]
        fn any_order_of_reports_ends_it_once_and_never_goes_back(order in prop::collection::vec(0..TENANT_PARTS.len(), 0..60)) {
            let mut deletion = deletion();
            for index in order.into_iter().chain(0..TENANT_PARTS.len()) {
                let (step, service) = TENANT_PARTS[index];
                match deletion.reported(&done(service, step), NOW) {
                    Ok(next) => {
                        prop_assert!(next.step >= deletion.step && next.revision - deletion.revision <= 1);
                        prop_assert!(next.parts.iter().all(|part| part.done || part.step >= next.step));
                        deletion = next;
                    }
                    Err(error) => {
                        prop_assert_eq!(error, ReportError::TooEarly);
                        prop_assert!(step > deletion.step);
                    }
                }
            }
            prop_assert_eq!(deletion.step, Step::Done);
        }
    }
}
