"""A client of Hawser in Python, made from the contracts by grpcio-tools as a user would make it.

    python client.py PROTO_FOLDER INSTANCE_FILE TENANT_ID

Connects to every service with mutual TLS, asks by reflection what is there, calls a few methods, and prints what it
found as JSON.
"""

import importlib
import json
import pathlib
import sys
import tempfile

import grpc
import grpc_tools.protoc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

# What google.rpc's error model travels in; its Python package is one that a client may do without.
STATUS = """
syntax = "proto3";
package google.rpc;
import "google/protobuf/any.proto";
message Status { int32 code = 1; string message = 2; repeated google.protobuf.Any details = 3; }
message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
message RequestInfo { string request_id = 1; string serving_data = 2; }
message BadRequest {
  message FieldViolation { string field = 1; string description = 2; }
  repeated FieldViolation field_violations = 1;
}
"""


def generate(protos, folder):
    """Makes the modules of all contracts in `folder`, and lets them be imported."""
    (folder / "status.proto").write_text(STATUS)
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    files = sorted(str(path.relative_to(protos)) for path in protos.rglob("*.proto"))
    options = [f"-I{protos}", f"-I{folder}", f"-I{well_known}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    failed = grpc_tools.protoc.main(["protoc", *options, *files, "status.proto"])
    if failed:
        sys.exit(f"protoc ended with {failed}")
    sys.path.insert(0, str(folder))
    return {path.removesuffix(".proto").replace("/", "."): path for path in files}


def connect(address, instance):
    tls = instance["tls"]
    credentials = grpc.ssl_channel_credentials(
        root_certificates=pathlib.Path(tls["ca"]).read_bytes(),
        private_key=pathlib.Path(tls["client_key"]).read_bytes(),
        certificate_chain=pathlib.Path(tls["client_cert"]).read_bytes(),
    )
    return grpc.secure_channel(address, credentials)


def failure(call, status):
    """Makes a call that has to fail, and tells what the error says."""
    try:
        call()
    except grpc.RpcError as error:
        told = {"code": error.code().name, "message": error.details()}
        for key, value in error.trailing_metadata():
            if key == "grpc-status-details-bin":
                details = status.Status.FromString(value).details
                for kind in (status.ErrorInfo, status.BadRequest, status.RequestInfo):
                    message = kind()
                    if any(detail.Unpack(message) for detail in details):
                        told[kind.DESCRIPTOR.name] = message
        info, bad = told.pop("ErrorInfo", None), told.pop("BadRequest", None)
        request = told.pop("RequestInfo", None)
        told["reason"] = info.reason if info else ""
        told["domain"] = info.domain if info else ""
        told["fields"] = sorted(violation.field for violation in bad.field_violations) if bad else []
        told["request_id"] = request.request_id if request else ""
        return told
    sys.exit("a call that had to fail did not")


def main():
    protos, instance, tenant_id = pathlib.Path(sys.argv[1]), json.loads(pathlib.Path(sys.argv[2]).read_text()), sys.argv[3]
    with tempfile.TemporaryDirectory() as folder:
        modules = generate(protos, pathlib.Path(folder))
        status = importlib.import_module("status_pb2")
        found = {"modules": len(modules), "services": {}, "methods": {}}
        channels = {name: connect(address, instance) for name, address in instance["grpc"].items()}

        for name, channel in channels.items():
            reflection = ProtoReflectionDescriptorDatabase(channel)
            pool = DescriptorPool(reflection)
            found["services"][name] = sorted(reflection.get_services())
            for service in found["services"][name]:
                methods = pool.FindServiceByName(service).methods
                found["methods"][service] = sorted(method.name for method in methods)

        messages = importlib.import_module("hawser.directory.v1.directory_pb2")
        directory = importlib.import_module("hawser.directory.v1.directory_pb2_grpc").DirectoryServiceStub(channels["directory"])
        tenant = directory.GetTenant(messages.GetTenantRequest(tenant_id=tenant_id), timeout=10).tenant
        found["tenant"] = {"tenant_id": tenant.tenant_id, "company_name": tenant.company_name}
        # A page at a time, as a client that lists does.
        listed, token = [], ""
        while True:
            page = directory.ListTenants(messages.ListTenantsRequest(page_size=1, page_token=token), timeout=10)
            listed += [tenant.tenant_id for tenant in page.tenants]
            token = page.next_page_token
            if not token:
                break
        found["listed"] = listed

        unusable = messages.CreateTenantRequest(tenant=messages.Tenant(subdomain="-no label-"))
        found["invalid"] = failure(lambda: directory.CreateTenant(unusable, timeout=10), status)
        absent = messages.GetTenantRequest(tenant_id="01900000-0000-7000-8000-000000000001")
        found["absent"] = failure(lambda: directory.GetTenant(absent, timeout=10), status)

        broker_messages = importlib.import_module("hawser.broker.v1.oauth_broker_pb2")
        broker = importlib.import_module("hawser.broker.v1.oauth_broker_pb2_grpc").IntegrationServiceStub(channels["broker"])
        providers = broker.ListProviders(broker_messages.ListProvidersRequest(page_size=1000), timeout=10).providers
        found["providers"] = sorted(provider.provider for provider in providers)

        # Without a certificate nobody is known.
        ca = pathlib.Path(instance["tls"]["ca"]).read_bytes()
        anonymous = grpc.secure_channel(instance["grpc"]["directory"], grpc.ssl_channel_credentials(root_certificates=ca))
        stub = importlib.import_module("hawser.directory.v1.directory_pb2_grpc").DirectoryServiceStub(anonymous)
        found["anonymous"] = failure(lambda: stub.ListTenants(messages.ListTenantsRequest(), timeout=10), status)
        json.dump(found, sys.stdout)


main()
