//! Opening a connection: name, address check, TCP, TLS, HTTP handshake. Nothing of a request is sent here.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::address::AddressPolicy;
use crate::config::EgressConfig;
use crate::error::{EgressError, Refusal};
use crate::resolve::Resolve;

/// The next address is tried after this long (RFC 8305, 5), while the ones before it go on.
const STAGGER: Duration = Duration::from_millis(250);
/// More addresses than this are not tried.
const MAX_ADDRESSES: usize = 8;
/// Longest head of an answer.
const MAX_HEAD_BYTES: usize = 32 * 1024;
const MAX_HEADERS: usize = 128;

/// What a connection leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    tls: bool,
    host: Host<String>,
    port: u16,
}

impl Origin {
    /// The origin of a URL that may be called at all.
    pub(crate) fn of(url: &Url) -> Result<Self, Refusal> {
        let tls = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(Refusal::Scheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::UserInfo);
        }
        let host = url.host().ok_or(Refusal::Host)?.to_owned();
        let port = url.port_or_known_default().ok_or(Refusal::Host)?;
        Ok(Self { tls, host, port })
    }

    pub(crate) fn host(&self) -> String {
        self.host.to_string()
    }
}

#[derive(Debug)]
pub(crate) struct Connector {
    policy: AddressPolicy,
    resolver: Arc<dyn Resolve>,
    tls: Arc<ClientConfig>,
}

impl Connector {
    pub(crate) fn new(config: &EgressConfig, resolver: Arc<dyn Resolve>) -> io::Result<Self> {
        let tls = Arc::new(tls_config(&trusted_roots(config)?)?);
        Ok(Self {
            policy: AddressPolicy::new(config),
            resolver,
            tls,
        })
    }

    pub(crate) async fn open(
        &self,
        origin: &Origin,
    ) -> Result<SendRequest<Full<Bytes>>, EgressError> {
        let addresses = self.addresses(origin).await?;
        let host = origin.host();
        let tcp = match dial(&addresses).await {
            Ok(tcp) => tcp,
            Err(source) => return Err(EgressError::Connect { host, source }),
        };
        if !origin.tls {
            return handshake(tcp, host).await;
        }
        let tls = async {
            let name = server_name(&origin.host)?;
            TlsConnector::from(Arc::clone(&self.tls))
                .connect(name, tcp)
                .await
        };
        match tls.await {
            Ok(stream) => handshake(stream, host).await,
            Err(source) => Err(EgressError::Tls { host, source }),
        }
    }

    /// The addresses that may be called; the caller connects to these and to no others.
    async fn addresses(&self, origin: &Origin) -> Result<Vec<SocketAddr>, EgressError> {
        let found = match &origin.host {
            Host::Ipv4(address) => vec![IpAddr::V4(*address)],
            Host::Ipv6(address) => vec![IpAddr::V6(*address)],
            Host::Domain(name) => self
                .resolver
                .resolve(name.clone())
                .await
                .map_err(|source| EgressError::Dns {
                    host: name.clone(),
                    source,
                })?,
        };
        let permitted: Vec<_> = found
            .into_iter()
            .filter(|address| {
                if origin.tls {
                    self.policy.permits(*address)
                } else {
                    self.policy.permits_plain(*address)
                }
            })
            .take(MAX_ADDRESSES)
            .map(|address| SocketAddr::new(address, origin.port))
            .collect();
        if permitted.is_empty() {
            let refusal = if origin.tls {
                Refusal::Address {
                    host: origin.host(),
                }
            } else {
                Refusal::Scheme
            };
            return Err(refusal.into());
        }
        Ok(permitted)
    }
}

/// The first address that answers.
async fn dial(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut untried = addresses.iter().copied();
    let mut attempts = FuturesUnordered::new();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        attempts.extend(untried.next().map(TcpStream::connect));
        tokio::select! {
            attempt = attempts.next() => match attempt {
                Some(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Some(Err(error)) => failure = error,
                None => return Err(failure),
            },
            () = sleep(STAGGER), if untried.len() > 0 => {}
        }
    }
}

async fn handshake<T>(io: T, host: String) -> Result<SendRequest<Full<Bytes>>, EgressError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(io))
        .await;
    let Ok((mut sender, connection)) = handshake else {
        return Err(EgressError::Closed { host });
    };
    // Ends when the sender is dropped or the peer closes; its error reaches whoever waits for an answer.
    tokio::spawn(connection);
    if sender.ready().await.is_err() {
        return Err(EgressError::Closed { host });
    }
    Ok(sender)
}

fn server_name(host: &Host<String>) -> io::Result<ServerName<'static>> {
    match host {
        Host::Domain(name) => {
            ServerName::try_from(name.trim_end_matches('.').to_owned()).map_err(io::Error::other)
        }
        Host::Ipv4(address) => Ok(IpAddr::V4(*address).into()),
        Host::Ipv6(address) => Ok(IpAddr::V6(*address).into()),
    }
}

fn trusted_roots(config: &EgressConfig) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    // A machine without certificates may still be one that calls loopback alone; https then fails in the handshake.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for file in &config.ca_files {
        let named = |error: &dyn std::fmt::Display| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: {error}", file.display()),
            )
        };
        let pem = fs::read(file).map_err(|error| named(&error))?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots
                .add(certificate.map_err(|error| named(&error))?)
                .map_err(|error| named(&error))?;
        }
    }
    Ok(roots)
}

fn tls_config(roots: &RootCertStore) -> io::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
