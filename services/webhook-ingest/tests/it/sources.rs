//! Making, changing and ending sources.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use common::config::Duration as Setting;
use common::rpc::CallError;
use common::{Code, Reason, TenantKey};
use contracts::ingest::v1::*;
use webhook_ingest::{Config, KeysConfig, SCHEMA};

use crate::world::{HOST, OPERATOR, PATIENCE, SECRET, Webhook, World};

#[tokio::test]
async fn every_field_that_cannot_be_taken_is_named_at_once() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let source = Source {
        tenant_id: "acme".to_owned(),
        source_id: "no/slash".to_owned(),
        scheme: "carrier-pigeon".to_owned(),
        trigger_streams: [(String::new(), "x".to_owned())].into(),
        ordered: true,
        rate_limit: 5,
        use_client_secret: true,
        ..Source::default()
    };
    let request = CreateSourceRequest {
        source: Some(source),
        ..CreateSourceRequest::default()
    };
    let refused = world
        .sources(&ingest, HOST)
        .create_source(request)
        .await
        .expect_err("all of it is wrong");
    let error = CallError::from(refused);
    assert_eq!(
        (error.code, error.reason),
        (Code::InvalidArgument, Some(Reason::InvalidField))
    );
    let named: BTreeSet<_> = error
        .fields
        .iter()
        .map(|field| field.field.as_str())
        .collect();
    let expected = [
        "source.tenant_id",
        "source.source_id",
        "source.scheme",
        "source.trigger_streams",
        "source.ordered",
        "source.rate_limit",
        "source.use_client_secret",
    ];
    assert_eq!(named, BTreeSet::from(expected));

    let wrong_secret = CreateSourceRequest {
        source: Some(Source {
            scheme: "standard-webhooks".to_owned(),
            ..world.source()
        }),
        secret: "whsec_ not base64".to_owned(),
        ..CreateSourceRequest::default()
    };
    let error = CallError::from(
        world
            .sources(&ingest, HOST)
            .create_source(wrong_secret)
            .await
            .expect_err("it fits no scheme"),
    );
    assert_eq!(error.fields[0].field, "secret");
    assert!(
        !error.message.contains("not base64"),
        "a secret is never repeated"
    );

    let unknown = Source {
        integration_id: "gitlab".to_owned(),
        ..world.source()
    };
    let error = world
        .create(&ingest, unknown)
        .await
        .expect_err("there is none");
    assert_eq!(error.fields[0].field, "source.integration_id");
}

#[tokio::test]
async fn a_repeated_call_makes_one_source_and_gives_its_address_again() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let request = CreateSourceRequest {
        request_id: "r-1".to_owned(),
        source: Some(Source {
            source_id: String::new(),
            ..world.source()
        }),
        secret: SECRET.to_owned(),
    };
    let mut client = world.sources(&ingest, HOST);
    let first = client
        .create_source(request.clone())
        .await
        .unwrap()
        .into_inner()
        .source
        .unwrap();
    let second = client
        .create_source(request.clone())
        .await
        .unwrap()
        .into_inner()
        .source
        .unwrap();
    assert_eq!(first, second);
    assert!(!first.source_id.is_empty() && first.url.contains("/hooks/"));
    let other = CreateSourceRequest {
        source: Some(world.source()),
        ..request
    };
    let error = CallError::from(
        client
            .create_source(other)
            .await
            .expect_err("it is another source"),
    );
    assert_eq!(error.reason, Some(Reason::RequestIdReused));
    world.create(&ingest, world.source()).await.unwrap();
    let error = world
        .create(&ingest, world.source())
        .await
        .expect_err("it is there");
    assert_eq!(error.code, Code::AlreadyExists);
}

#[tokio::test]
async fn a_source_is_listed_changed_and_ended() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    for name in ["c", "a", "b"] {
        world
            .create(
                &ingest,
                Source {
                    source_id: name.to_owned(),
                    ..world.source()
                },
            )
            .await
            .unwrap();
    }
    let mut client = world.sources(&ingest, HOST);
    let mut listed = Vec::new();
    let mut request = ListSourcesRequest {
        tenant_id: world.tenant.to_string(),
        page_size: 2,
        ..ListSourcesRequest::default()
    };
    loop {
        let page = client
            .list_sources(request.clone())
            .await
            .unwrap()
            .into_inner();
        listed.extend(page.sources);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(
        listed
            .iter()
            .map(|source| source.source_id.as_str())
            .collect::<Vec<_>>(),
        ["a", "b", "c"]
    );

    let changed = Source {
        trigger_streams: [("*".to_owned(), "issues".to_owned())].into(),
        sealed_bodies: true,
        ..listed[0].clone()
    };
    let request = UpdateSourceRequest {
        source: Some(changed),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["trigger_streams".to_owned()],
        }),
    };
    let updated = client
        .update_source(request)
        .await
        .unwrap()
        .into_inner()
        .source
        .unwrap();
    assert_eq!(updated.trigger_streams["*"], "issues");
    assert!(!updated.sealed_bodies, "only what the mask names");
    assert_eq!(updated.url, listed[0].url);
    let request = UpdateSourceRequest {
        source: Some(updated.clone()),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["scheme".to_owned()],
        }),
    };
    let error = CallError::from(
        client
            .update_source(request)
            .await
            .expect_err("it cannot be changed"),
    );
    assert_eq!(error.fields[0].field, "update_mask");

    assert_eq!(world.send(&updated.url, &Webhook::push("d", 7)).await, 200);
    world
        .event_in(&ingest, world.tenant, EventState::Unrouted)
        .await;
    let request = DeleteSourceRequest {
        tenant_id: world.tenant.to_string(),
        source_id: "a".to_owned(),
    };
    client.delete_source(request.clone()).await.unwrap();
    let ended = async || world.send(&updated.url, &Webhook::push("d", 7)).await == 404;
    testkit::eventually(PATIENCE, ended).await;
    let error = CallError::from(client.delete_source(request).await.expect_err("it is gone"));
    assert_eq!(error.code, Code::NotFound);
    assert_eq!(world.stored().await, 1, "its events stay");
    // Another of the same name is another one, and has another address.
    let again = world
        .create(
            &ingest,
            Source {
                source_id: "a".to_owned(),
                ..world.source()
            },
        )
        .await
        .unwrap();
    assert_ne!(again.url, updated.url);
    assert_eq!(world.send(&updated.url, &Webhook::push("d", 7)).await, 404);
}

#[tokio::test]
async fn req_teamsync_09_another_tenants_source_is_not_found() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    world.create(&ingest, world.source()).await.unwrap();
    let tenant_id = TenantKey::new_tenant(&world.deps).to_string();
    let source_id = "hooks".to_owned();
    let mut client = world.sources(&ingest, HOST);
    let got = client
        .get_source(GetSourceRequest {
            tenant_id: tenant_id.clone(),
            source_id: source_id.clone(),
        })
        .await;
    let rotation = RotateSourceSecretRequest {
        tenant_id: tenant_id.clone(),
        source_id: source_id.clone(),
        new_secret: SECRET.to_owned(),
        overlap: None,
    };
    let rotated = client.rotate_source_secret(rotation).await;
    let update = UpdateSourceRequest {
        source: Some(Source {
            tenant_id: tenant_id.clone(),
            ..world.source()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["sealed_bodies".to_owned()],
        }),
    };
    let updated = client.update_source(update).await;
    let deleted = client
        .delete_source(DeleteSourceRequest {
            tenant_id: tenant_id.clone(),
            source_id,
        })
        .await;
    let refused = [
        got.map(drop),
        rotated.map(drop),
        updated.map(drop),
        deleted.map(drop),
    ];
    for refused in refused {
        assert_eq!(
            CallError::from(refused.expect_err("it is another's")).code,
            Code::NotFound
        );
    }
    let listed = client
        .list_sources(ListSourcesRequest {
            tenant_id,
            ..ListSourcesRequest::default()
        })
        .await;
    assert!(listed.unwrap().into_inner().sources.is_empty());
}

#[tokio::test]
async fn the_platforms_sources_are_its_operators() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let source = Source {
        tenant_id: TenantKey::PLATFORM.to_string(),
        integration_id: String::new(),
        ..world.source()
    };
    let request = CreateSourceRequest {
        source: Some(source.clone()),
        secret: SECRET.to_owned(),
        ..CreateSourceRequest::default()
    };
    let error = world
        .sources(&ingest, HOST)
        .create_source(request.clone())
        .await
        .expect_err("a backend runs no platform");
    assert_eq!(CallError::from(error).code, Code::PermissionDenied);
    world
        .sources(&ingest, OPERATOR)
        .create_source(request)
        .await
        .unwrap();
}

#[tokio::test]
async fn schemes_are_listed_with_what_the_person_has_to_do() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let mut client = world.sources(&ingest, HOST);
    let found = client
        .list_schemes(ListSchemesRequest {
            search: "GITHUB".to_owned(),
        })
        .await
        .unwrap()
        .into_inner()
        .schemes;
    assert_eq!(found.len(), 1);
    assert!(found[0].setup.contains("payload URL") && found[0].docs_url.starts_with("https://"));
    let all = client
        .list_schemes(ListSchemesRequest::default())
        .await
        .unwrap()
        .into_inner()
        .schemes;
    assert!(all.len() >= 2);
}

#[tokio::test]
async fn a_sources_secrets_follow_its_tenants_key() {
    let _logs = testkit::logs::capture();
    let (world, ingest) = World::new().await;
    let source = world.create(&ingest, world.source()).await.unwrap();
    drop(ingest);
    world.others.rotations.store(1, Ordering::SeqCst);
    let config = world.config(world.database.config(SCHEMA.name));
    let keys = KeysConfig {
        reseal_every: Setting::from_millis(50),
    };
    let ingest = world.start_with(Config { keys, ..config }).await;
    let behind = "SELECT count(*) FROM ingest.sources
        WHERE substring(token_sealed FROM 5 FOR 4) <> int4send(2) OR substring(secret_sealed FROM 5 FOR 4) <> int4send(2)";
    testkit::eventually(PATIENCE, async || world.count(behind).await == 0).await;
    // The address is still the same, and what is signed is still believed.
    let request = GetSourceRequest {
        tenant_id: world.tenant.to_string(),
        source_id: source.source_id.clone(),
    };
    let mut client = world.sources(&ingest, HOST);
    let found = client.get_source(request).await.unwrap().into_inner();
    let url = found.source.unwrap().url;
    assert_eq!(
        url.split("/hooks/").nth(1),
        source.url.split("/hooks/").nth(1)
    );
    assert_eq!(world.send(&url, &Webhook::push("1", 7)).await, 200);
}
