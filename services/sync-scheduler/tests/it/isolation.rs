//! Tenants do not see each other, users see what is their own, and workers hold what they may.

use common::rpc::CallError;
use common::{Code, Reason, TenantKey};
use contracts::broker::v1::Connection;
use contracts::scheduler::v1::worker_service_client::WorkerServiceClient;
use contracts::scheduler::v1::*;
use tonic::Request;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::world::*;

/// What each method that a person or a backend may call answers about this connection and job.
async fn answers<'a>(
    world: &'a World,
    uri: &str,
    connection: &Connection,
    job: &Job,
    as_user: Option<(TenantKey, &'a str, &'a [&'a str])>,
) -> Vec<(&'static str, Result<(), CallError>)> {
    let mut syncs = world.syncs(uri);
    let mut answers = Vec::new();
    macro_rules! ask {
        ($method:ident, $message:expr) => {
            let request = match as_user {
                Some((tenant, user, roles)) => world.signed($message, tenant, user, roles),
                None => Request::new($message),
            };
            answers.push((
                stringify!($method),
                syncs
                    .$method(request)
                    .await
                    .map(drop)
                    .map_err(CallError::from),
            ));
        };
    }
    let (tenant_id, connection_id) = (
        connection.tenant_id.clone(),
        connection.connection_id.clone(),
    );
    let job_id = job.job_id.clone();
    ask!(
        get_job,
        GetJobRequest {
            tenant_id: tenant_id.clone(),
            job_id: job_id.clone()
        }
    );
    ask!(
        get_sync_state,
        GetSyncStateRequest {
            tenant_id: tenant_id.clone(),
            connection_id: connection_id.clone()
        }
    );
    ask!(trigger_sync, triggering(connection));
    ask!(start_initial_sync, starting(connection));
    ask!(
        cancel_job,
        CancelJobRequest {
            tenant_id: tenant_id.clone(),
            job_id: job_id.clone()
        }
    );
    if as_user.is_none_or(|(_, _, roles)| roles.contains(&"admin")) {
        ask!(
            retry_job,
            RetryJobRequest {
                tenant_id: tenant_id.clone(),
                job_id
            }
        );
        ask!(
            list_cursors,
            ListCursorsRequest {
                tenant_id,
                connection_id,
                ..ListCursorsRequest::default()
            }
        );
    }
    answers
}

fn all_not_found(answers: &[(&'static str, Result<(), CallError>)]) {
    for (method, answer) in answers {
        let error = answer.as_ref().expect_err(method);
        assert_eq!(error.code, Code::NotFound, "{method}: {error:?}");
    }
}

#[tokio::test]
async fn another_tenants_ids_are_not_found() {
    let world = World::new().await;
    // The worst case: the same bucket.
    let (acme, brick) = (world.tenant_in(7, "Acme"), world.tenant_in(7, "Brick"));
    let theirs = world.connect(brick, "bob");
    let job = world.trigger(&theirs, "messages").await;
    let before = world.job(&job).await;
    for roles in [&[][..], &["admin"][..]] {
        let found = answers(&world, HOST, &theirs, &job, Some((acme, "ada", roles))).await;
        all_not_found(&found);
    }
    // As one's own tenant's.
    let mixed = Connection {
        tenant_id: acme.to_string(),
        ..theirs.clone()
    };
    all_not_found(&answers(&world, HOST, &mixed, &job, Some((acme, "ada", &["admin"]))).await);
    all_not_found(&answers(&world, HOST, &mixed, &job, None).await);
    let list = ListJobsRequest {
        tenant_id: brick.to_string(),
        ..ListJobsRequest::default()
    };
    assert_eq!(
        code(
            world
                .syncs(HOST)
                .list_jobs(world.signed(list, acme, "ada", &["admin"]))
                .await
        ),
        Code::NotFound
    );
    let own = ListJobsRequest {
        tenant_id: acme.to_string(),
        ..ListJobsRequest::default()
    };
    let own = world.signed(own, acme, "ada", &["admin"]);
    assert_eq!(
        world
            .syncs(HOST)
            .list_jobs(own)
            .await
            .unwrap()
            .into_inner()
            .jobs,
        []
    );
    assert_eq!(world.job(&job).await, before);
}

#[tokio::test]
async fn a_user_sees_its_own_connections() {
    let world = World::new().await;
    let tenant = world.tenant("Acme");
    let (ada, bob) = (world.connect(tenant, "ada"), world.connect(tenant, "bob"));
    let (of_ada, of_bob) = (
        world.trigger(&ada, "messages").await,
        world.trigger(&bob, "messages").await,
    );
    // What an administrator asked for is still about one's own connection.
    let request = TriggerSyncRequest {
        streams: texts(&["projects"]),
        ..triggering(&ada)
    };
    let request = world.signed(request, tenant, "root", &["admin"]);
    world.syncs(HOST).trigger_sync(request).await.unwrap();
    all_not_found(&answers(&world, HOST, &bob, &of_bob, Some((tenant, "ada", &[]))).await);
    let own = answers(&world, HOST, &ada, &of_ada, Some((tenant, "ada", &[]))).await;
    assert!(own.iter().all(|(_, answer)| answer.is_ok()), "{own:?}");
    let listing = |user| {
        let request = ListJobsRequest {
            tenant_id: tenant.to_string(),
            ..ListJobsRequest::default()
        };
        world.signed(request, tenant, user, &[])
    };
    let jobs = world
        .syncs(HOST)
        .list_jobs(listing("ada"))
        .await
        .unwrap()
        .into_inner()
        .jobs;
    assert!(
        !jobs.is_empty()
            && jobs
                .iter()
                .all(|job| job.connection_id == ada.connection_id)
    );
    assert!(jobs.iter().any(|job| job.user_id == "root"));
    let jobs = world
        .syncs(HOST)
        .list_jobs(listing("bob"))
        .await
        .unwrap()
        .into_inner()
        .jobs;
    assert_eq!(jobs.len(), 1);
    // And no user is a worker.
    let request = world.signed(
        LeaseJobsRequest {
            queues: texts(&[OWN]),
            ..leasing("ada")
        },
        tenant,
        "ada",
        &[],
    );
    assert_eq!(
        code(world.workers(HOST).lease_jobs(request).await),
        Code::PermissionDenied
    );
}

#[expect(
    clippy::disallowed_methods,
    reason = "a client without a certificate is what is tested"
)]
async fn without_certificate(world: &World) -> WorkerServiceClient<Channel> {
    let authority = std::fs::read(world.ca_file()).unwrap();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority))
        .domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{}", world.address))
        .unwrap()
        .tls_config(tls)
        .unwrap();
    WorkerServiceClient::new(endpoint.connect().await.unwrap())
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one story, told from its beginning to its end"
)]
async fn a_tenants_worker_holds_its_tenants_jobs_on_queues_of_its_own() {
    let world = World::new().await;
    let (acme, brick) = (world.tenant_in(7, "Acme"), world.tenant_in(7, "Brick"));
    let mut jobs = Vec::new();
    for tenant in [acme, brick] {
        let connection = world.connect(tenant, "ada");
        let request = StartInitialSyncRequest {
            queue: OWN.into(),
            streams: texts(&["s"]),
            ..starting(&connection)
        };
        jobs.push(
            world
                .syncs(HOST)
                .start_initial_sync(request)
                .await
                .unwrap()
                .into_inner()
                .jobs
                .remove(0),
        );
    }
    let built_in = world.trigger(&world.connect(acme, "bob"), "messages").await;
    world.directory.put_worker_key("hk_acme", acme);
    let mut workers = without_certificate(&world).await;
    assert_eq!(
        code(workers.lease_jobs(leasing("w")).await),
        Code::Unauthenticated
    );
    let strange = violated(workers.lease_jobs(bearer(leasing("w"), "hk_acme")).await);
    assert_eq!(strange, ["queues"], "the built-in worker's queue");

    let own = LeaseJobsRequest {
        queues: texts(&[OWN]),
        request_id: "r".into(),
        ..leasing("w")
    };
    let leased = workers
        .lease_jobs(bearer(own.clone(), "hk_acme"))
        .await
        .unwrap()
        .into_inner()
        .jobs;
    assert_eq!(leased.len(), 1);
    assert_eq!(job_of(&leased[0]).job_id, jobs[0].job_id);
    // The other's is leased by the host application, under the same names.
    let theirs = world
        .workers(HOST)
        .lease_jobs(own.clone())
        .await
        .unwrap()
        .into_inner()
        .jobs;
    let theirs = theirs
        .iter()
        .find(|leased| job_of(leased).tenant_id == brick.to_string());
    let theirs = match theirs {
        Some(leased) => leased.clone(),
        None => lease_again(&world).await,
    };
    let again = workers
        .lease_jobs(bearer(own, "hk_acme"))
        .await
        .unwrap()
        .into_inner()
        .jobs;
    assert_eq!(again, leased);

    // Tokens are small numbers: knowing one is not holding the lease.
    let built_in_lease = world.lease_one("built-in").await;
    assert_eq!(job_of(&built_in_lease).job_id, built_in.job_id);
    let claims = [
        held(&theirs),
        LeaseRef {
            tenant_id: acme.to_string(),
            ..held(&theirs)
        },
        held(&built_in_lease),
    ];
    for lease in claims {
        let at = CheckpointRequest {
            lease: Some(lease.clone()),
            cursor_json: "1".into(),
            checkpoint_number: 1,
            ..CheckpointRequest::default()
        };
        let error = refusal(workers.checkpoint(bearer(at, "hk_acme")).await);
        assert_eq!(error.reason, Some(Reason::LeaseLost), "{error:?}");
        let completion = JobCompletion {
            lease: Some(lease.clone()),
            ..JobCompletion::default()
        };
        let request = CompleteJobsRequest {
            completions: vec![completion],
        };
        let answer = workers
            .complete_jobs(bearer(request, "hk_acme"))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.lost_job_ids, std::slice::from_ref(&lease.job_id));
        let beat = HeartbeatRequest {
            leases: vec![lease.clone()],
            ..HeartbeatRequest::default()
        };
        let answer = workers
            .heartbeat(bearer(beat, "hk_acme"))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.lost_job_ids, [lease.job_id]);
    }
    assert_eq!(world.job(&jobs[1]).await.state(), JobState::Running);
    assert_eq!(world.job(&built_in).await.state(), JobState::Running);
}

async fn lease_again(world: &World) -> LeasedJob {
    let request = LeaseJobsRequest {
        queues: texts(&[OWN]),
        ..leasing("other")
    };
    world
        .workers(HOST)
        .lease_jobs(request)
        .await
        .unwrap()
        .into_inner()
        .jobs
        .remove(0)
}

#[tokio::test]
async fn a_query_that_forgets_the_tenant_sees_its_own_tenant_alone() {
    let world = World::new().await;
    let (acme, brick) = (world.tenant_in(7, "Acme"), world.tenant_in(7, "Brick"));
    for tenant in [acme, brick] {
        let connection = world.connect(tenant, "ada");
        world.backfill(&connection, &["messages"]).await;
        let grant = GrantOverrideRequest {
            tenant_id: tenant.to_string(),
            reason: "once more".into(),
            ..GrantOverrideRequest::default()
        };
        world
            .permissions(OPERATOR)
            .grant_override(grant)
            .await
            .unwrap();
    }
    let database = world.database.database(&sync_scheduler::SCHEMA);
    for table in [
        "streams",
        "cursor_versions",
        "sync_locks",
        "overrides",
        "jobs",
        "turns",
    ] {
        let sql =
            format!("-- scheduler.{table}_forgetful\nSELECT tenant_id FROM scheduler.{table}");
        let seen = async |scope| {
            let rows = database.query(scope, &sql, &[]).await.unwrap();
            rows.iter()
                .map(|row| row.get("tenant_id"))
                .collect::<Vec<uuid::Uuid>>()
        };
        assert_eq!(
            seen(common::pg::Scope::Tenant(acme)).await,
            [acme.id()],
            "{table}"
        );
        assert_eq!(seen(common::pg::Scope::System).await.len(), 2, "{table}");
        let delete = format!(
            "-- scheduler.{table}_careless\nDELETE FROM scheduler.{table} WHERE tenant_id = $1"
        );
        let deleted = database
            .execute(common::pg::Scope::Tenant(acme), &delete, &[&brick.id()])
            .await
            .unwrap();
        assert_eq!(deleted, 0, "{table}");
    }
}
