//! Who reaches what.

use common::rpc::CallError;
use common::{Code, Reason};
use contracts::directory::v1::directory_service_client::DirectoryServiceClient;
use contracts::directory::v1::*;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::world::{BROKER, HOST, OPERATOR, World, bearer, code, mask, user};

struct Two {
    world: World,
    ours: Tenant,
    theirs: Tenant,
}

impl Two {
    async fn new() -> Self {
        let world = World::new().await;
        let tenant = |name: &str| Tenant {
            company_name: name.into(),
            subdomain: format!("{name}-co"),
            external_id: format!("{name}-ext"),
            subscription: Some(Subscription {
                billing_customer_id: format!("{name}-bill"),
                ..Subscription::default()
            }),
            ..Tenant::default()
        };
        let ours = world.create_tenant("", tenant("ours")).await.unwrap();
        let theirs = world.create_tenant("", tenant("theirs")).await.unwrap();
        for tenant in [&ours, &theirs] {
            for id in ["jo", "kim"] {
                world
                    .ensure_user(user(&tenant.tenant_id, id))
                    .await
                    .unwrap();
            }
        }
        Self {
            world,
            ours,
            theirs,
        }
    }
}

/// A caller without a certificate.
#[expect(
    clippy::disallowed_methods,
    reason = "a client without a certificate is what is tested"
)]
async fn anonymous(world: &World) -> DirectoryServiceClient<tonic::transport::Channel> {
    let authority = std::fs::read(world.ca_file()).unwrap();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority))
        .domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{}", world.address()))
        .unwrap()
        .tls_config(tls)
        .unwrap();
    DirectoryServiceClient::new(endpoint.connect().await.unwrap())
}

/// Calls every method about the tenant `t`, by a caller who should not reach it; what is not refused as not found is
/// returned.
macro_rules! refused {
    ($directory:expr, $wrap:expr, $tenant:expr) => {{
        let (directory, tenant) = (&mut $directory, $tenant);
        let t = tenant.tenant_id.clone();
        let mut wrong: Vec<(&str, Code)> = Vec::new();
        let mut note = |method: &'static str, code: Code| {
            if code != Code::NotFound {
                wrong.push((method, code));
            }
        };
        note(
            "GetTenant",
            code(
                directory
                    .get_tenant($wrap(GetTenantRequest {
                        tenant_id: t.clone(),
                    }))
                    .await,
            ),
        );
        note(
            "GetTenantBySubdomain",
            code(
                directory
                    .get_tenant_by_subdomain($wrap(GetTenantBySubdomainRequest {
                        subdomain: tenant.subdomain.clone(),
                    }))
                    .await,
            ),
        );
        note(
            "GetTenantByExternalId",
            code(
                directory
                    .get_tenant_by_external_id($wrap(GetTenantByExternalIdRequest {
                        external_id: tenant.external_id.clone(),
                    }))
                    .await,
            ),
        );
        note(
            "GetTenantByBillingCustomerId",
            code(
                directory
                    .get_tenant_by_billing_customer_id($wrap(GetTenantByBillingCustomerIdRequest {
                        billing_customer_id: tenant
                            .subscription
                            .clone()
                            .unwrap()
                            .billing_customer_id,
                    }))
                    .await,
            ),
        );
        note(
            "UpdateTenant",
            code(
                directory
                    .update_tenant($wrap(UpdateTenantRequest {
                        tenant: Some(Tenant {
                            tenant_id: t.clone(),
                            ..Tenant::default()
                        }),
                        update_mask: mask(&["logo_url"]),
                    }))
                    .await,
            ),
        );
        note(
            "DeleteTenant",
            code(
                directory
                    .delete_tenant($wrap(DeleteTenantRequest {
                        tenant_id: t.clone(),
                        confirm_subdomain: tenant.subdomain.clone(),
                    }))
                    .await,
            ),
        );
        note(
            "EnsureUser",
            code(
                directory
                    .ensure_user($wrap(EnsureUserRequest {
                        user: Some(user(&t, "jo")),
                    }))
                    .await,
            ),
        );
        note(
            "GetUser",
            code(
                directory
                    .get_user($wrap(GetUserRequest {
                        tenant_id: t.clone(),
                        user_id: "jo".into(),
                    }))
                    .await,
            ),
        );
        note(
            "ListUsers",
            code(
                directory
                    .list_users($wrap(ListUsersRequest {
                        tenant_id: t.clone(),
                        ..ListUsersRequest::default()
                    }))
                    .await,
            ),
        );
        note(
            "UpdateUser",
            code(
                directory
                    .update_user($wrap(UpdateUserRequest {
                        user: Some(user(&t, "jo")),
                        update_mask: mask(&["email"]),
                    }))
                    .await,
            ),
        );
        note(
            "DeleteUser",
            code(
                directory
                    .delete_user($wrap(DeleteUserRequest {
                        tenant_id: t.clone(),
                        user_id: "jo".into(),
                        delete_documents: false,
                    }))
                    .await,
            ),
        );
        note(
            "GetTenantConfig",
            code(
                directory
                    .get_tenant_config($wrap(GetTenantConfigRequest {
                        tenant_id: t.clone(),
                    }))
                    .await,
            ),
        );
        note(
            "UpdateTenantConfig",
            code(
                directory
                    .update_tenant_config($wrap(UpdateTenantConfigRequest {
                        config: Some(TenantConfig {
                            tenant_id: t.clone(),
                            ..TenantConfig::default()
                        }),
                        update_mask: mask(&["risk_rules"]),
                    }))
                    .await,
            ),
        );
        note(
            "ListDeletions",
            code(
                directory
                    .list_deletions($wrap(ListDeletionsRequest {
                        tenant_id: t.clone(),
                        ..ListDeletionsRequest::default()
                    }))
                    .await,
            ),
        );
        wrong
    }};
}

#[tokio::test]
async fn req_teamsync_09_nothing_of_another_tenant_is_found() {
    let logs = testkit::logs::capture();
    let Two {
        world,
        ours,
        theirs,
    } = Two::new().await;
    let mut directory = world.directory(HOST);
    for roles in [&["admin"][..], &[]] {
        let wrong = refused!(
            directory,
            |message| world.signed(message, &ours.tenant_id, "jo", roles),
            &theirs
        );
        assert_eq!(wrong, [], "{roles:?}");
        let request = world.signed(ListTenantsRequest::default(), &ours.tenant_id, "jo", roles);
        let listed = directory
            .list_tenants(request)
            .await
            .unwrap()
            .into_inner()
            .tenants;
        assert_eq!(listed, std::slice::from_ref(&ours));
        let both = vec![theirs.tenant_id.clone(), ours.tenant_id.clone()];
        let request = world.signed(
            BatchGetTenantsRequest { tenant_ids: both },
            &ours.tenant_id,
            "jo",
            roles,
        );
        let found = directory
            .batch_get_tenants(request)
            .await
            .unwrap()
            .into_inner()
            .tenants;
        assert_eq!(found, [Tenant::default(), ours.clone()]);
    }
    assert_eq!(
        world.get(&theirs.tenant_id).await.unwrap(),
        theirs,
        "nothing has changed"
    );
    drop(logs);
}

#[tokio::test]
async fn an_api_key_reaches_its_tenants_alone() {
    let Two {
        world,
        ours,
        theirs,
    } = Two::new().await;
    let key = ApiKey {
        display_name: "app".into(),
        role: "host".into(),
        tenant_ids: vec![ours.tenant_id.clone()],
        ..ApiKey::default()
    };
    let request = CreateApiKeyRequest {
        request_id: String::new(),
        api_key: Some(key),
    };
    let secret = world
        .api_keys(OPERATOR)
        .create_api_key(request)
        .await
        .unwrap()
        .into_inner()
        .secret;
    let mut directory = anonymous(&world).await;
    let request = bearer(
        GetTenantRequest {
            tenant_id: ours.tenant_id.clone(),
        },
        &secret,
    );
    assert_eq!(
        directory
            .get_tenant(request)
            .await
            .unwrap()
            .into_inner()
            .tenant,
        Some(ours.clone())
    );
    let wrong = refused!(directory, |message| bearer(message, &secret), &theirs);
    assert_eq!(wrong, []);
    let listed = directory
        .list_tenants(bearer(ListTenantsRequest::default(), &secret))
        .await
        .unwrap();
    assert_eq!(listed.into_inner().tenants, [ours]);
    let tenant = Some(Tenant {
        company_name: "New".into(),
        ..Tenant::default()
    });
    let request = bearer(
        CreateTenantRequest {
            request_id: String::new(),
            tenant,
        },
        &secret,
    );
    assert_eq!(
        code(directory.create_tenant(request).await),
        Code::PermissionDenied
    );
    let request = bearer(GetTenantRequest::default(), "hk_wrong");
    assert_eq!(
        code(directory.get_tenant(request).await),
        Code::Unauthenticated
    );
    let error = CallError::from(
        directory
            .get_tenant(GetTenantRequest::default())
            .await
            .unwrap_err(),
    );
    assert_eq!(
        (error.code, error.reason),
        (Code::Unauthenticated, Some(Reason::IdentityMissing))
    );
}

#[tokio::test]
async fn a_user_who_is_no_administrator_reads_itself_and_its_tenant() {
    let Two { world, ours, .. } = Two::new().await;
    let t = ours.tenant_id.clone();
    let mut directory = world.directory(HOST);
    macro_rules! sign {
        ($message:expr) => {
            world.signed($message, &t, "jo", &["account_executive"])
        };
    }
    let get = |id: &str| GetUserRequest {
        tenant_id: t.clone(),
        user_id: id.into(),
    };
    directory
        .get_tenant(sign!(GetTenantRequest {
            tenant_id: t.clone()
        }))
        .await
        .unwrap();
    directory.get_user(sign!(get("jo"))).await.unwrap();
    assert_eq!(
        code(directory.get_user(sign!(get("kim"))).await),
        Code::NotFound
    );
    assert_eq!(
        code(directory.get_user(sign!(get("nobody"))).await),
        Code::NotFound
    );
    let request = ListUsersRequest {
        tenant_id: t.clone(),
        ..ListUsersRequest::default()
    };
    let users = directory
        .list_users(sign!(request))
        .await
        .unwrap()
        .into_inner()
        .users;
    assert_eq!(
        users
            .iter()
            .map(|user| user.user_id.as_str())
            .collect::<Vec<_>>(),
        ["jo"]
    );

    // It signs in, and says who it is, but not what it may.
    let named = User {
        first_name: "Jo".into(),
        ..user(&t, "jo")
    };
    directory
        .ensure_user(sign!(EnsureUserRequest { user: Some(named) }))
        .await
        .unwrap();
    let admin = User {
        roles: vec!["admin".into()],
        ..user(&t, "jo")
    };
    assert_eq!(
        code(
            directory
                .ensure_user(sign!(EnsureUserRequest {
                    user: Some(admin.clone())
                }))
                .await
        ),
        Code::PermissionDenied
    );
    let request = UpdateUserRequest {
        user: Some(admin),
        update_mask: mask(&["roles"]),
    };
    assert_eq!(
        code(directory.update_user(sign!(request)).await),
        Code::PermissionDenied
    );
    assert_eq!(
        code(
            directory
                .ensure_user(sign!(EnsureUserRequest {
                    user: Some(user(&t, "kim"))
                }))
                .await
        ),
        Code::NotFound
    );
    let request = DeleteUserRequest {
        tenant_id: t.clone(),
        user_id: "jo".into(),
        delete_documents: false,
    };
    assert_eq!(
        code(directory.delete_user(sign!(request)).await),
        Code::PermissionDenied
    );
    let change = Tenant {
        tenant_id: t.clone(),
        company_name: "Mine".into(),
        ..Tenant::default()
    };
    let request = UpdateTenantRequest {
        tenant: Some(change),
        update_mask: mask(&["company_name"]),
    };
    assert_eq!(
        code(directory.update_tenant(sign!(request)).await),
        Code::PermissionDenied
    );
    let config = TenantConfig {
        tenant_id: t.clone(),
        ..TenantConfig::default()
    };
    let request = UpdateTenantConfigRequest {
        config: Some(config),
        update_mask: mask(&["risk_rules"]),
    };
    assert_eq!(
        code(directory.update_tenant_config(sign!(request)).await),
        Code::PermissionDenied
    );
}

#[tokio::test]
async fn an_administrator_decides_for_its_tenant_and_not_for_the_platform() {
    let Two { world, ours, .. } = Two::new().await;
    let t = ours.tenant_id.clone();
    let mut directory = world.directory(HOST);
    macro_rules! sign {
        ($message:expr) => {
            world.signed($message, &t, "boss", &["admin"])
        };
    }
    let change = Tenant {
        tenant_id: t.clone(),
        company_name: "Ours, Inc.".into(),
        support_contact: "help@ours.example".into(),
        subdomain: "mine".into(),
        state: TenantState::Suspended.into(),
        subscription: Some(Subscription {
            tier: SubscriptionTier::Enterprise.into(),
            ..Subscription::default()
        }),
        ..Tenant::default()
    };
    let request = |paths: &[&str]| UpdateTenantRequest {
        tenant: Some(change.clone()),
        update_mask: mask(paths),
    };
    directory
        .update_tenant(sign!(request(&["company_name", "support_contact"])))
        .await
        .unwrap();
    for path in [
        "subscription.tier",
        "quotas",
        "subdomain",
        "external_id",
        "state",
    ] {
        assert_eq!(
            code(directory.update_tenant(sign!(request(&[path]))).await),
            Code::PermissionDenied,
            "{path}"
        );
    }
    let tenant = Some(Tenant {
        company_name: "New".into(),
        external_id: "new".into(),
        ..Tenant::default()
    });
    let create = CreateTenantRequest {
        request_id: String::new(),
        tenant: tenant.clone(),
    };
    assert_eq!(
        code(directory.create_tenant(sign!(create)).await),
        Code::PermissionDenied
    );
    assert_eq!(
        code(
            directory
                .ensure_tenant(sign!(EnsureTenantRequest { tenant }))
                .await
        ),
        Code::PermissionDenied
    );
    let request = DeleteTenantRequest {
        tenant_id: t.clone(),
        confirm_subdomain: ours.subdomain.clone(),
    };
    assert_eq!(
        code(directory.delete_tenant(sign!(request)).await),
        Code::PermissionDenied
    );
    let kim = User {
        roles: vec!["admin".into()],
        ..user(&t, "kim")
    };
    directory
        .ensure_user(sign!(EnsureUserRequest { user: Some(kim) }))
        .await
        .unwrap();
    let request = DeleteUserRequest {
        tenant_id: t.clone(),
        user_id: "kim".into(),
        delete_documents: false,
    };
    directory.delete_user(sign!(request)).await.unwrap();
}

#[tokio::test]
async fn req_teamsync_02_a_user_is_known_by_the_hosts_own_id_of_its_tenant() {
    let Two { world, ours, .. } = Two::new().await;
    let mut directory = world.directory(HOST);
    let request = GetUserRequest {
        tenant_id: ours.tenant_id.clone(),
        user_id: "jo".into(),
    };
    let known = world.signed(request.clone(), "ours-ext", "jo", &[]);
    assert_eq!(
        directory
            .get_user(known)
            .await
            .unwrap()
            .into_inner()
            .user
            .unwrap()
            .user_id,
        "jo"
    );
    let unknown = world.signed(request.clone(), "nobodys-ext", "jo", &[]);
    let error = CallError::from(directory.get_user(unknown).await.unwrap_err());
    assert_eq!(
        (error.code, error.reason),
        (Code::Unauthenticated, Some(Reason::IdentityMissing))
    );
    let without_user = world.signed(request, &ours.tenant_id, "", &[]);
    assert_eq!(
        code(directory.get_user(without_user).await),
        Code::Unauthenticated
    );
}

#[tokio::test]
async fn services_read_and_do_not_write() {
    let Two { world, ours, .. } = Two::new().await;
    let mut directory = world.directory(BROKER);
    let t = ours.tenant_id.clone();
    directory
        .get_tenant(GetTenantRequest {
            tenant_id: t.clone(),
        })
        .await
        .unwrap();
    directory
        .get_user(GetUserRequest {
            tenant_id: t.clone(),
            user_id: "jo".into(),
        })
        .await
        .unwrap();
    let request = EnsureUserRequest {
        user: Some(user(&t, "jo")),
    };
    assert_eq!(
        code(directory.ensure_user(request).await),
        Code::PermissionDenied
    );
    let request = DeleteTenantRequest {
        tenant_id: t,
        confirm_subdomain: ours.subdomain,
    };
    assert_eq!(
        code(directory.delete_tenant(request).await),
        Code::PermissionDenied
    );
}
