//! Callers of every kind, and calls of any method.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use common::identity::tls::TlsConfig;
use common::identity::{Actor, Identity};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::client::Grpc;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};

use crate::descriptors::Method;

/// What generated clients are built on.
pub(crate) type Connection = InterceptedService<Channel, Credentials>;

/// Somebody who calls.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// For the message of a test that fails.
    pub(crate) name: String,
    /// What its certificate or its API key proves.
    pub(crate) identity: Option<Identity>,
    pub(crate) credentials: Credentials,
    tls: Arc<ClientConfig>,
}

/// What is sent with each call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials {
    /// An API key or a user's token.
    pub(crate) bearer: Option<String>,
    /// The actor that is passed on.
    pub(crate) actor: Option<Actor>,
}

/// Long enough for a machine that is busy; no handler waits that long for an empty request.
const DEADLINE: Duration = Duration::from_secs(20);

impl Caller {
    /// With a certificate, or without one but with the authority that the servers are known by.
    pub(crate) fn new(name: &str, identity: Option<Identity>, tls: &TlsConfig) -> Self {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_file_iter(&tls.ca_file).expect("hawser wrote it") {
            roots
                .add(authority.expect("it is PEM"))
                .expect("it is an authority");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(roots);
        let mut config = if identity.is_some() {
            let chain = CertificateDer::pem_file_iter(&tls.cert_file)
                .and_then(Iterator::collect)
                .expect("a certificate");
            let key = PrivateKeyDer::from_pem_file(&tls.key_file).expect("its key");
            builder
                .with_client_auth_cert(chain, key)
                .expect("they belong together")
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self {
            name: name.to_owned(),
            identity,
            credentials: Credentials::default(),
            tls: Arc::new(config),
        }
    }

    /// The same, with a user's token.
    pub(crate) fn with_token(&self, name: &str, token: &str) -> Self {
        let mut caller = self.named(name);
        caller.credentials.bearer = Some(token.to_owned());
        caller
    }

    /// The same, with an API key, which proves an identity.
    pub(crate) fn with_key(&self, name: &str, identity: Identity, key: &str) -> Self {
        let mut caller = self.with_token(name, key);
        caller.identity = Some(identity);
        caller
    }

    /// The same, passing an actor on.
    pub(crate) fn on_behalf_of(&self, name: &str, actor: Actor) -> Self {
        let mut caller = self.named(name);
        caller.credentials.actor = Some(actor);
        caller
    }

    fn named(&self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..self.clone()
        }
    }

    /// A connection, which is made when it is first used.
    pub(crate) fn connect(&self, address: SocketAddr) -> Connection {
        let tls = TlsConnector::from(self.tls.clone());
        let uri: Uri = format!("http://{address}").parse().expect("an address");
        let channel = Endpoint::from(uri)
            .timeout(DEADLINE)
            .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let tls = tls.clone();
                async move {
                    let stream = TcpStream::connect(address).await?;
                    let name = ServerName::IpAddress(address.ip().into());
                    std::io::Result::Ok(TokioIo::new(tls.connect(name, stream).await?))
                }
            }));
        InterceptedService::new(channel, self.credentials.clone())
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(bearer) = &self.bearer {
            let value = format!("Bearer {bearer}").parse().expect("it is printable");
            request.metadata_mut().insert("authorization", value);
        }
        if let Some(actor) = &self.actor {
            let value = MetadataValue::from_bytes(&actor.encode_to_vec());
            request.metadata_mut().insert_bin("hawser-actor-bin", value);
        }
        Ok(request)
    }
}

/// Calls any method with an encoded message, and gives the first encoded answer; none where a stream has begun well.
pub(crate) async fn call(
    connection: &Connection,
    method: &Method,
    message: Bytes,
) -> Result<Bytes, Status> {
    call_within(connection, method, message, DEADLINE).await
}

/// As [`call`], with a deadline of the caller's own.
pub(crate) async fn call_within(
    connection: &Connection,
    method: &Method,
    message: Bytes,
    deadline: Duration,
) -> Result<Bytes, Status> {
    let mut grpc = Grpc::new(connection.clone());
    grpc.ready()
        .await
        .map_err(|error| Status::unknown(format!("no connection: {error}")))?;
    let path = format!("/{}", method.name)
        .parse()
        .expect("a method's name is a path");
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    // On the wire an answer is a stream of one.
    let mut answers = grpc
        .server_streaming(request, path, Encoded)
        .await?
        .into_inner();
    if method.streams {
        return Ok(Bytes::new());
    }
    let answer = answers.message().await?;
    answer.ok_or_else(|| Status::unknown("an answer without a message"))
}

/// Messages as they are on the wire.
#[derive(Clone, Copy, Debug)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}
